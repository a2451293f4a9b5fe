/* See unit_row.h. */
#include "infer/unit_row.h"

#include <math.h>

bool f2b_unit_row(float *row, int64_t d)
{
    double sum = 0;
    for (int64_t j = 0; j < d; j++) sum += (double)row[j] * (double)row[j];
    if (!isfinite(sum)) return false;
    const double scale = sum > 0 ? 1.0 / sqrt(sum) : 0;
    for (int64_t j = 0; j < d; j++) row[j] = (float)(row[j] * scale);
    return true;
}
