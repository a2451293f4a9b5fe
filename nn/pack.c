/* See pack.h. Two walks over the sequences on the host, one counts, one fills; then all is copied. */
#include "nn/pack.h"

#include <string.h>

#include "nn/dropout_places.h"

int64_t f2b_pack_item_rows(const f2b_pack_item *item, const f2b_pack_options *o)
{
    int64_t rows = item->n + (item->summary ? o->summary_rows : 0);
    for (int64_t i = 0; i < item->n; i++)
        if (item->ids[i] == F2B_ROW_IMAGE) rows += o->image_rows - 1;
    return rows;
}

int64_t f2b_pack_item_labels(const f2b_pack_item *item)
{
    int64_t n = 0;
    for (int64_t i = 0; item->labels != NULL && i < item->n; i++)
        n += item->labels[i] != F2B_ROW_NO_LABEL;
    return n;
}

void f2b_pack_item_keys(const f2b_pack_item *item, const f2b_pack_options *o, uint64_t *keys)
{
    const int64_t rows = f2b_pack_item_rows(item, o);
    uint64_t text = 0;
    int64_t row = 0;
    for (; row < item->n && item->ids[row] != F2B_ROW_IMAGE; row++) {
        text = f2b_dropout_text(text, item->ids[row]);
        keys[row] = f2b_dropout_text_key(text, row);
    }
    for (; row < rows; row++) keys[row] = f2b_dropout_row_key(item->key, row);
}

static int64_t item_images(const f2b_pack_item *item)
{
    int64_t n = 0;
    for (int64_t i = 0; i < item->n; i++) n += item->ids[i] == F2B_ROW_IMAGE;
    return n;
}

static int64_t item_wanted(const f2b_pack_item *item, const f2b_pack_options *o)
{
    if (o->all_rows) return f2b_pack_item_rows(item, o);
    if (o->last_row) return 1;
    return item->summary ? o->summary_rows : f2b_pack_item_labels(item);
}

static f2b_status check(const f2b_pack_item *item, const f2b_pack_options *o, int64_t s)
{
    if (f2b_pack_item_rows(item, o) < 1)
        return f2b_fail(F2B_ERR_DATA, "sequence %lld of a pass is empty", (long long)s);
    if (item_images(item) > 1)
        return f2b_fail(F2B_ERR_DATA, "sequence %lld of a pass has two images", (long long)s);
    if (item->labels != NULL && item->n > 0 && item->labels[0] != F2B_ROW_NO_LABEL)
        return f2b_fail(F2B_ERR_DATA, "sequence %lld of a pass has a label that nothing comes before",
                        (long long)s);
    return F2B_OK;
}

/* What a row set's tensors will hold, as the host fills it. */
typedef struct row_writer {
    int32_t *index, *positions, *q_start, *limit;
    uint64_t *keys;
    int64_t rows;
    double pairs;               /* sum of limit */
} row_writer;

/* All tables of a pack on the host: they are filled here and then copied to the device. */
typedef struct filler {
    f2b_pack *pack;
    const f2b_pack_options *o;
    row_writer all, wanted;
    int32_t *k_start, *k_count, *from, *labels, *stored, *keys;
    int64_t shared, n_keys;     /* rows that the first sequence computes for all; keys so far */
    uint64_t *names;            /* the dropout keys of the sequence that is laid out */
} filler;

static int32_t *ints(int64_t n) { return f2b_calloc((size_t)n + 1, sizeof(int32_t), F2B_TAG_DATA); }

static bool writer_new(row_writer *w, int64_t rows, int64_t n)
{
    *w = (row_writer){ .index = ints(rows), .positions = ints(rows), .q_start = ints(n + 1),
                       .limit = ints(rows),
                       .keys = f2b_calloc((size_t)rows + 1, sizeof *w->keys, F2B_TAG_DATA) };
    return w->index && w->positions && w->q_start && w->limit && w->keys;
}

static f2b_status filler_new(filler *f, int64_t wanted)
{
    const int64_t rows = f->pack->rows, n = f->pack->n;
    const bool written = writer_new(&f->all, rows, n) && writer_new(&f->wanted, wanted, n);
    f->k_start = ints(n), f->k_count = ints(n);
    f->from = ints(2 * rows), f->labels = ints(wanted), f->stored = ints(rows);
    f->keys = ints(f->pack->sequence_rows);
    f->names = f2b_calloc((size_t)f->pack->sequence_rows + 1, sizeof *f->names, F2B_TAG_DATA);
    return written && f->k_start && f->k_count && f->from && f->labels && f->stored && f->keys && f->names
        ? F2B_OK : F2B_ERR_MEMORY;
}

static void filler_free(filler *f)
{
    row_writer *const writers[] = { &f->all, &f->wanted };
    for (int i = 0; i < 2; i++) {
        f2b_free(writers[i]->index);
        f2b_free(writers[i]->positions);
        f2b_free(writers[i]->q_start);
        f2b_free(writers[i]->limit);
        f2b_free(writers[i]->keys);
    }
    f2b_free(f->k_start);
    f2b_free(f->k_count);
    f2b_free(f->from);
    f2b_free(f->labels);
    f2b_free(f->stored);
    f2b_free(f->keys);
    f2b_free(f->names);
}

/* ---- Filling ---- */

static void add_row(row_writer *w, int64_t row, int64_t position, int64_t limit, uint64_t key)
{
    w->index[w->rows] = (int32_t)row;
    w->positions[w->rows] = (int32_t)position;
    w->limit[w->rows] = (int32_t)limit;
    w->pairs += (double)limit;
    w->keys[w->rows] = key;
    w->rows++;
}

/* A sequence while it is laid out. */
typedef struct place {
    int64_t first, length;      /* row that its position 0 has or would have, were it not shared; rows */
    f2b_pack_slot slot;
} place;

/* One more row of the sequence; wanted with `label` (-1: wanted without). */
static void put(filler *f, const place *p, f2b_pack_source source, int64_t source_row, bool wanted,
                int32_t label)
{
    const int64_t row = f->all.rows, position = p->slot.held + row - p->first;
    const uint64_t key = f->names[row - p->first];
    const int64_t limit = f->o->bidirectional ? p->slot.held + p->length : position + 1;
    f->pack->uses[source] = true;
    f->from[2 * row] = (int32_t)source;
    f->from[2 * row + 1] = (int32_t)source_row;
    f->stored[row] = (int32_t)(p->slot.first + position);
    add_row(&f->all, row, position, limit, key);
    if (!wanted) return;
    f->labels[f->wanted.rows] = label;
    add_row(&f->wanted, row, position, limit, key);
}

static void fill_sequence(filler *f, const f2b_pack_item *item, int64_t s)
{
    const f2b_pack_options *o = f->o;
    const int64_t shared = s > 0 ? f->shared : 0;
    const place p = { f->all.rows - shared, f2b_pack_item_rows(item, o),
                      o->slots != NULL ? o->slots[s] : (f2b_pack_slot){ f->n_keys, 0 } };
    const bool by_label = !o->all_rows && !o->last_row && !item->summary;
    f2b_pack_item_keys(item, o, f->names);
    for (int64_t i = shared; i < item->n; i++) {
        const bool image = item->ids[i] == F2B_ROW_IMAGE;
        const int32_t next = item->labels != NULL && i + 1 < item->n ? item->labels[i + 1]
                                                                     : F2B_ROW_NO_LABEL;
        const int64_t rows = image ? o->image_rows : 1;
        for (int64_t r = 0; r < rows; r++) {
            const bool last_of_id = r + 1 == rows, last = f->all.rows + 1 == p.first + p.length;
            const bool wanted = o->all_rows || (o->last_row && last) ||
                                (by_label && last_of_id && next != F2B_ROW_NO_LABEL);
            put(f, &p, image ? F2B_FROM_IMAGES : F2B_FROM_TOKENS,
                image ? item->image * o->image_rows + r : item->ids[i], wanted, next);
        }
    }
    for (int64_t r = 0; item->summary && r < o->summary_rows; r++)
        put(f, &p, F2B_FROM_SUMMARY, r, !o->last_row || f->all.rows + 1 == p.first + p.length,
            F2B_ROW_NO_LABEL);
    for (int64_t i = 0; i < p.length; i++)
        f->keys[f->n_keys++] = (int32_t)(i < shared ? i : p.first + i);
    f->k_start[s] = (int32_t)p.slot.first;
    f->k_count[s] = (int32_t)(p.slot.held + p.length);
    f->all.q_start[s + 1] = (int32_t)f->all.rows;
    f->wanted.q_start[s + 1] = (int32_t)f->wanted.rows;
}

/* ---- Shared rows ---- */

/* Of the sequence's first `most` ids, those that are as the other's, are text, and whose rows nobody wants;
 * at least one row is left. */
static int64_t common_prefix(const f2b_pack_item *a, const f2b_pack_item *b, const f2b_pack_options *o,
                             int64_t most)
{
    const int64_t rows = f2b_pack_item_rows(b, o);
    int64_t i = 0;
    while (i < most && i < a->n && i < b->n && i + 1 < rows && b->ids[i] == a->ids[i] &&
           b->ids[i] != F2B_ROW_IMAGE &&
           (b->labels == NULL || i + 1 >= b->n || b->labels[i + 1] == F2B_ROW_NO_LABEL))
        i++;
    return i;
}

/* How many rows are computed once for all: none where it would save less than a thirty-second, for keys and values
 * are then copied, on a device all of them. */
static int64_t shared_rows(const f2b_pack_item *items, int64_t n, const f2b_pack_options *o, int64_t rows)
{
    enum { WORTH = 32 };
    if (!o->share_prefix || n < 2) return 0;
    int64_t most = INT64_MAX;
    for (int64_t s = 0; s < n; s++) most = common_prefix(&items[0], &items[s], o, most);
    return (n - 1) * most * WORTH >= rows ? most : 0;
}

/* ---- To the device ---- */

static bool table(f2b_tape *tape, f2b_tensor **out, const int32_t *values, int64_t n)
{
    return (*out = f2b_tape_table(tape, F2B_I32, 1, &n, values)) != NULL;
}

/* Keys and values are those of all rows in both sets. */
static f2b_status row_set(f2b_tape *tape, f2b_row_set *set, const row_writer *w, int64_t n,
                          const f2b_attention_layout *keys, bool with_index)
{
    const int64_t key_bytes = w->rows * (int64_t)sizeof *w->keys;
    f2b_tensor *row_keys = f2b_tape_table(tape, F2B_U8, 1, &key_bytes, w->keys);
    *set = (f2b_row_set){ .rows = w->rows, .layout = *keys,
                          .row_keys = row_keys != NULL ? row_keys->data : NULL };
    set->layout.pairs = w->pairs;
    const bool good = row_keys != NULL && table(tape, &set->positions, w->positions, w->rows) &&
                      table(tape, &set->layout.q_start, w->q_start, n + 1) &&
                      table(tape, &set->layout.limit, w->limit, w->rows) &&
                      (!with_index || table(tape, &set->index, w->index, w->rows));
    return good ? F2B_OK : f2b_last_status();
}

/* Where less than half of the rows come from sources that want a gradient, the list of those. */
static f2b_status grad_rows(f2b_tape *tape, const filler *f)
{
    f2b_pack *p = f->pack;
    if (f->o->grad_sources == 0) return F2B_OK;
    int32_t *rows = ints(p->rows);
    if (rows == NULL) return F2B_ERR_MEMORY;
    int64_t n = 0;
    for (int64_t t = 0; t < p->rows; t++)
        if (f->o->grad_sources >> f->from[2 * t] & 1) rows[n++] = (int32_t)t;
    const bool few = n > 0 && 2 * n < p->rows;
    const bool good = !few || table(tape, &p->grad_rows, rows, n);
    f2b_free(rows);
    return good ? F2B_OK : f2b_last_status();
}

static f2b_status copy(f2b_tape *tape, const filler *f, bool labelled)
{
    f2b_pack *p = f->pack;
    f2b_attention_layout keys = { .shared = f->shared };
    if (f->shared > 0 && !table(tape, &keys.key_rows, f->keys, f->n_keys)) return f2b_last_status();
    if (!table(tape, &keys.k_start, f->k_start, p->n) || !table(tape, &keys.k_count, f->k_count, p->n))
        return f2b_last_status();
    F2B_TRY(row_set(tape, &p->all, &f->all, p->n, &keys, false));
    F2B_TRY(row_set(tape, &p->wanted, &f->wanted, p->n, &keys, f->wanted.rows < p->rows));
    if (f->o->slots != NULL && !table(tape, &p->stored, f->stored, p->rows)) return f2b_last_status();
    if (labelled && !table(tape, &p->labels, f->labels, f->wanted.rows)) return f2b_last_status();
    F2B_TRY(grad_rows(tape, f));
    p->from = f2b_tape_table(tape, F2B_I32, 2, (int64_t[]){ p->rows, 2 }, f->from);
    return p->from != NULL ? F2B_OK : f2b_last_status();
}

f2b_status f2b_pack_build(f2b_tape *tape, const f2b_pack_item *items, int64_t n,
                          const f2b_pack_options *o, f2b_pack *pack)
{
    int64_t wanted = 0;
    *pack = (f2b_pack){ .n = n, .image_rows = o->image_rows };
    F2B_CHECK(!o->share_prefix || (o->slots == NULL && !o->all_rows && !o->bidirectional));
    bool labelled = !o->all_rows && !o->last_row;
    for (int64_t s = 0; s < n; s++) {
        F2B_TRY(check(&items[s], o, s));
        pack->sequence_rows += f2b_pack_item_rows(&items[s], o);
        wanted += item_wanted(&items[s], o);
        labelled = labelled && items[s].labels != NULL;
    }
    if (pack->sequence_rows > INT32_MAX / 2)
        return f2b_fail(F2B_ERR_DATA, "a pass of %lld rows is too large; lower "
                        "train.micro_batch_tokens", (long long)pack->sequence_rows);
    filler f = { .pack = pack, .o = o, .shared = shared_rows(items, n, o, pack->sequence_rows) };
    pack->rows = pack->sequence_rows - f.shared * (n - 1);
    f2b_status status = filler_new(&f, wanted);
    for (int64_t s = 0; s < n && status == F2B_OK; s++) fill_sequence(&f, &items[s], s);
    F2B_CHECK(status != F2B_OK || (f.all.rows == pack->rows && f.wanted.rows == wanted));
    if (status == F2B_OK) status = copy(tape, &f, labelled);
    filler_free(&f);
    return status;
}
