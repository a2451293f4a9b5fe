/* See readings.h. Numbers are kept as f64, whatever they were made in. */
#include "autograd/device/readings.h"

#include "autograd/device/device.h"

enum { FIRST_CAPACITY = 64 };

f2b_readings *f2b_readings_new(f2b_device device)
{
    f2b_readings *r = f2b_calloc(1, sizeof *r, F2B_TAG_OTHER);
    if (r != NULL) r->device = device;
    return r;
}

void f2b_readings_free(f2b_readings *r)
{
    if (r == NULL) return;
    f2b_free(r->there);
    f2b_free(r->here);
    f2b_free(r);
}

void f2b_readings_clear(f2b_readings *r) { r->n = 0; }

static f2b_status grow(f2b_readings *r)
{
    const int64_t capacity = r->capacity > 0 ? 2 * r->capacity : FIRST_CAPACITY;
    const size_t bytes = (size_t)capacity * sizeof(double);
    double *here = f2b_realloc(r->here, bytes, F2B_TAG_OTHER);
    if (here == NULL) return F2B_ERR_MEMORY;
    r->here = here;
    double *there = f2b_alloc(r->device, bytes, F2B_TAG_OTHER);
    if (there == NULL) return F2B_ERR_MEMORY;
    const f2b_status status =
        f2b_copy(there, r->device, r->there, r->device, (size_t)r->n * sizeof(double));
    f2b_free(r->there);
    r->there = there, r->capacity = capacity;
    return status;
}

f2b_status f2b_readings_place(f2b_readings *r, double **place, int64_t *number)
{
    if (r->n == r->capacity) F2B_TRY(grow(r));
    *number = r->n++;
    *place = r->there + *number;
    return F2B_OK;
}

f2b_status f2b_readings_add(f2b_readings *r, const f2b_tensor *x, int64_t *number)
{
    double *place;
    F2B_CHECK(x->dtype == F2B_F32 || x->dtype == F2B_F64);
    F2B_TRY(f2b_readings_place(r, &place, number));
    return f2b_widen(r->device, place, x->data, x->dtype);
}

f2b_status f2b_readings_fetch(f2b_readings *r)
{
    return f2b_copy(r->here, F2B_HOST, r->there, r->device, (size_t)r->n * sizeof(double));
}

double f2b_readings_at(const f2b_readings *r, int64_t number)
{
    F2B_CHECK(number >= 0 && number < r->n);
    return r->here[number];
}
