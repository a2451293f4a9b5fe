/* See pack.h. Two walks over the sequences: one counts, one fills. */
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

static int32_t *ints(f2b_tape *tape, f2b_tensor **out, int64_t n)
{
    *out = f2b_tape_keep(f2b_tape_tensor(tape, F2B_I32, 1, &n));
    return *out != NULL ? (*out)->data : NULL;
}

/* The tensors of a row set, to be filled. */
typedef struct row_writer {
    int32_t *index, *positions, *q_start, *limit;
    uint64_t *keys;
    int64_t rows;
} row_writer;

static f2b_status row_set_new(f2b_tape *tape, f2b_row_set *set, row_writer *w, int64_t rows,
                              int64_t n, const f2b_attention_layout *keys_of)
{
    f2b_tensor *key_tensor = f2b_tape_keep(
        f2b_tape_tensor(tape, F2B_U8, 1, (int64_t[]){ rows * (int64_t)sizeof(uint64_t) }));
    *w = (row_writer){ .index = ints(tape, &set->index, rows),
                       .positions = ints(tape, &set->positions, rows),
                       .q_start = ints(tape, &set->layout.q_start, n + 1),
                       .limit = ints(tape, &set->layout.limit, rows),
                       .keys = key_tensor != NULL ? key_tensor->data : NULL };
    if (keys_of != NULL) {
        set->layout.k_start = keys_of->k_start, set->layout.k_count = keys_of->k_count;
    } else {
        ints(tape, &set->layout.k_start, n);
        ints(tape, &set->layout.k_count, n);
    }
    set->rows = rows;
    set->row_keys = w->keys;
    if (!w->index || !w->positions || !w->q_start || !w->limit || !w->keys ||
        !set->layout.k_start || !set->layout.k_count)
        return f2b_last_status();
    w->q_start[0] = 0;
    return F2B_OK;
}

static void add_row(row_writer *w, int64_t row, int64_t position, int64_t limit, uint64_t key)
{
    w->index[w->rows] = (int32_t)row;
    w->positions[w->rows] = (int32_t)position;
    w->limit[w->rows] = (int32_t)limit;
    w->keys[w->rows] = f2b_dropout_row_key(key, position);
    w->rows++;
}

typedef struct filler {
    f2b_pack *pack;
    const f2b_pack_options *o;
    row_writer all, wanted;
    int32_t *from, *labels;
} filler;

/* One more row of the sequence that starts at `first`; wanted with `label` (-1: wanted without). */
static void put(filler *f, int64_t first, int64_t length, uint64_t key, f2b_pack_source source,
                int64_t source_row, bool wanted, int32_t label)
{
    const int64_t row = f->all.rows, position = row - first;
    const int64_t limit = f->o->bidirectional ? length : position + 1;
    f->pack->uses[source] = true;
    f->from[2 * row] = (int32_t)source;
    f->from[2 * row + 1] = (int32_t)source_row;
    add_row(&f->all, row, position, limit, key);
    if (!wanted) return;
    if (f->labels != NULL) f->labels[f->wanted.rows] = label;
    add_row(&f->wanted, row, position, limit, key);
}

static void fill_sequence(filler *f, const f2b_pack_item *item, int64_t s)
{
    const f2b_pack_options *o = f->o;
    const int64_t first = f->all.rows, length = f2b_pack_item_rows(item, o);
    const bool by_label = !o->all_rows && !o->last_row && !item->summary;
    for (int64_t i = 0; i < item->n; i++) {
        const bool image = item->ids[i] == F2B_ROW_IMAGE;
        const int32_t next = item->labels != NULL && i + 1 < item->n ? item->labels[i + 1]
                                                                     : F2B_ROW_NO_LABEL;
        const int64_t rows = image ? o->image_rows : 1;
        for (int64_t r = 0; r < rows; r++) {
            const bool last_of_id = r + 1 == rows, last = f->all.rows + 1 == first + length;
            const bool wanted = o->all_rows || (o->last_row && last) ||
                                (by_label && last_of_id && next != F2B_ROW_NO_LABEL);
            put(f, first, length, item->key, image ? F2B_FROM_IMAGES : F2B_FROM_TOKENS,
                image ? item->image * o->image_rows + r : item->ids[i], wanted, next);
        }
    }
    for (int64_t r = 0; item->summary && r < o->summary_rows; r++)
        put(f, first, length, item->key, F2B_FROM_SUMMARY, r, !o->last_row ||
            f->all.rows + 1 == first + length, F2B_ROW_NO_LABEL);
    ((int32_t *)f->pack->all.layout.k_start->data)[s] = (int32_t)first;
    ((int32_t *)f->pack->all.layout.k_count->data)[s] = (int32_t)length;
    f->all.q_start[s + 1] = (int32_t)f->all.rows;
    f->wanted.q_start[s + 1] = (int32_t)f->wanted.rows;
}

f2b_status f2b_pack_build(f2b_tape *tape, const f2b_pack_item *items, int64_t n,
                          const f2b_pack_options *o, f2b_pack *pack)
{
    int64_t wanted = 0;
    *pack = (f2b_pack){ .n = n, .image_rows = o->image_rows };
    bool labelled = !o->all_rows && !o->last_row;
    for (int64_t s = 0; s < n; s++) {
        F2B_TRY(check(&items[s], o, s));
        pack->rows += f2b_pack_item_rows(&items[s], o);
        wanted += item_wanted(&items[s], o);
        labelled = labelled && items[s].labels != NULL;
    }
    if (pack->rows > INT32_MAX / 2)
        return f2b_fail(F2B_ERR_DATA, "a pass of %lld rows is too large; lower "
                        "train.micro_batch_tokens", (long long)pack->rows);
    filler f = { .pack = pack, .o = o };
    F2B_TRY(row_set_new(tape, &pack->all, &f.all, pack->rows, n, NULL));
    F2B_TRY(row_set_new(tape, &pack->wanted, &f.wanted, wanted, n, &pack->all.layout));
    pack->from = f2b_tape_keep(f2b_tape_tensor(tape, F2B_I32, 2, (int64_t[]){ pack->rows, 2 }));
    if (pack->from != NULL) f.from = pack->from->data;
    if (labelled) f.labels = ints(tape, &pack->labels, wanted);
    if (!f.from || (labelled && !f.labels)) return f2b_last_status();
    for (int64_t s = 0; s < n; s++) fill_sequence(&f, &items[s], s);
    F2B_CHECK(f.all.rows == pack->rows && f.wanted.rows == wanted);
    pack->all.index = NULL;
    if (wanted == pack->rows) pack->wanted.index = NULL;
    return F2B_OK;
}
