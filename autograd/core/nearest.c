/* Edit distance in three rows. See nearest.h for the contract. */
#include "autograd/core/nearest.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

enum { LONGEST = 127 };

static int min3(int a, int b, int c)
{
    const int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

int f2b_edit_distance(const char *a, const char *b)
{
    const int na = (int)strnlen(a, LONGEST), nb = (int)strnlen(b, LONGEST);
    int rows[3][LONGEST + 1]; /* row i-2 (for swaps), i-1 and i, in turn */
    for (int j = 0; j <= nb; j++) rows[0][j] = j;
    for (int i = 1; i <= na; i++) {
        const int *before = rows[(i + 1) % 3], *last = rows[(i + 2) % 3];
        int *row = rows[i % 3];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            const int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            row[j] = min3(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                y == tolower((unsigned char)a[i - 2]) && before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
    }
    return rows[na % 3][nb];
}

const char *f2b_nearest_name(const char *text, const char *const *names, int64_t n)
{
    const char *best = NULL;
    int least = 0;
    for (int64_t i = 0; i < n; i++) {
        if (names[i] == NULL) continue;
        const int distance = f2b_edit_distance(text, names[i]);
        size_t longer = strlen(text) > strlen(names[i]) ? strlen(text) : strlen(names[i]);
        if (longer > LONGEST) longer = LONGEST;
        const int worth = longer < 6 ? 1 : (int)(longer / 3);
        if (distance <= worth && (best == NULL || distance < least)) {
            best = names[i];
            least = distance;
        }
    }
    return best;
}
