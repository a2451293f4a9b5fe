/* Names and contents of a store's images in memory. See store_internal.h. */
#include <string.h>
#include <xxhash.h>

#include "autograd/core/alloc.h"
#include "checkpoints/store_internal.h"

/* ---- Numbers by hash: open addressing, at most half full ---- */

static void insert(f2bi_slots *slots, uint64_t hash, int64_t number)
{
    const uint64_t mask = (uint64_t)slots->size - 1;
    uint64_t at = hash & mask;
    while (slots->at[at].number != 0) at = (at + 1) & mask;
    slots->at[at] = (struct f2bi_slot){ hash, number + 1 };
    slots->n++;
}

f2b_status f2bi_slots_add(f2bi_slots *slots, uint64_t hash, int64_t number)
{
    if (2 * (slots->n + 1) > slots->size) {
        f2bi_slots grown = { .size = slots->size > 0 ? 2 * slots->size : 64 };
        grown.at = f2b_calloc((size_t)grown.size, sizeof *grown.at, F2B_TAG_FILES);
        if (!grown.at) return f2b_last_status();
        for (int64_t i = 0; i < slots->size; i++)
            if (slots->at[i].number != 0)
                insert(&grown, slots->at[i].hash, slots->at[i].number - 1);
        f2b_free(slots->at);
        *slots = grown;
    }
    insert(slots, hash, number);
    return F2B_OK;
}

int64_t f2bi_slots_next(const f2bi_slots *slots, uint64_t hash, uint64_t *place)
{
    if (slots->size == 0) return -1;
    const uint64_t mask = (uint64_t)slots->size - 1;
    for (;;) {
        const struct f2bi_slot *slot = &slots->at[*place & mask];
        if (slot->number == 0) return -1;
        ++*place;
        if (slot->hash == hash) return slot->number - 1;
    }
}

/* ---- Names ---- */

/* Room for n elements of what *block points to; *room counts them. */
static f2b_status grow(void *block, int64_t *room, int64_t n, size_t size)
{
    void **p = block;
    if (n <= *room) return F2B_OK;
    const int64_t more = n + n / 2 + 64;
    void *grown = f2b_realloc(*p, (size_t)more * size, F2B_TAG_FILES);
    if (!grown) return f2b_last_status();
    *p = grown;
    *room = more;
    return F2B_OK;
}

f2b_status f2bi_names_add(f2bi_names *names, const char *name, size_t length)
{
    F2B_TRY(grow(&names->text, &names->text_room, names->bytes + (int64_t)length + 1, 1));
    F2B_TRY(grow(&names->starts, &names->room, names->n + 1, sizeof *names->starts));
    F2B_TRY(f2bi_slots_add(&names->slots, XXH3_64bits(name, length), names->n));
    memcpy(names->text + names->bytes, name, length);
    names->text[names->bytes + (int64_t)length] = '\0';
    names->starts[names->n++] = names->bytes;
    names->bytes += (int64_t)length + 1;
    return F2B_OK;
}

const char *f2bi_names_at(const f2bi_names *names, int64_t i)
{
    return names->text + names->starts[i];
}

int64_t f2bi_names_find(const f2bi_names *names, const char *name)
{
    const uint64_t hash = XXH3_64bits(name, strlen(name));
    uint64_t place = hash;
    int64_t i;
    do i = f2bi_slots_next(&names->slots, hash, &place);
    while (i >= 0 && strcmp(f2bi_names_at(names, i), name) != 0);
    return i;
}

void f2bi_names_clear(f2bi_names *names)
{
    f2b_free(names->text);
    f2b_free(names->starts);
    f2b_free(names->slots.at);
    *names = (f2bi_names){ 0 };
}

/* ---- Images ---- */

f2b_status f2bi_catalog_add(f2bi_catalog *c, const char *id, size_t length,
                            const uint8_t hash[F2BI_STORE_HASH_BYTES])
{
    F2B_TRY(grow(&c->hashes, &c->hashes_room, c->ids.n + 1, sizeof *c->hashes));
    memcpy(c->hashes[c->ids.n], hash, sizeof *c->hashes);
    return f2bi_names_add(&c->ids, id, length);
}

f2b_status f2bi_catalog_add_duplicate(f2bi_catalog *c, const char *id, size_t length, int64_t row)
{
    F2B_TRY(grow(&c->duplicate_rows, &c->duplicates_room, c->duplicates.n + 1,
                 sizeof *c->duplicate_rows));
    c->duplicate_rows[c->duplicates.n] = row;
    return f2bi_names_add(&c->duplicates, id, length);
}

int64_t f2bi_catalog_find(const f2bi_catalog *c, const char *id)
{
    const int64_t row = f2bi_names_find(&c->ids, id);
    if (row >= 0) return row;
    const int64_t i = f2bi_names_find(&c->duplicates, id);
    return i >= 0 ? c->duplicate_rows[i] : -1;
}

void f2bi_catalog_clear(f2bi_catalog *c)
{
    f2bi_names_clear(&c->ids);
    f2bi_names_clear(&c->duplicates);
    f2b_free(c->hashes);
    f2b_free(c->duplicate_rows);
    *c = (f2bi_catalog){ 0 };
}
