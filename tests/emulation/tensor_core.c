/*
 * Matrix instructions and asynchronous copies of an emulated warp. Layouts are those of the PTX ISA:
 * with g = lane / 4 and t = lane % 4, a register of two numbers holds columns 2t and 2t + 1 of row g.
 */
#include <string.h>

#include "autograd/core/dtype.h"
#include "tests/emulation/emulation_internal.h"

void f2b_emu_mma(float c[4], const unsigned a[4], const unsigned b[2], const char *file, int line);
void f2b_emu_load_matrices(unsigned r[4], unsigned address, bool turned, const char *file, int line);
void f2b_emu_copy(unsigned to, const void *from, unsigned bytes, bool there, const char *file, int line);
void f2b_emu_copy_wait(void);
unsigned f2b_emu_pair(float low, float high);

enum { WARP = 32, MOST_THREADS = 1024, MOST_COPIES = 256 };
#define ALL_LANES 0xFFFFFFFFu

static float low_of(unsigned pair) { return f2b_bf16_to_f32((f2b_bf16)(pair & 0xFFFF)); }
static float high_of(unsigned pair) { return f2b_bf16_to_f32((f2b_bf16)(pair >> 16)); }

unsigned f2b_emu_pair(float low, float high)
{
    return (unsigned)f2b_f32_to_bf16(low) | (unsigned)f2b_f32_to_bf16(high) << 16;
}

/* ---- mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 ---- */

typedef struct mma_lane {
    float *c;
    unsigned a[4], b[2];
} mma_lane;

/* c [16, 8] += a [16, 16] b [16, 8]; f32 sums in the order of k, which a device doesn't promise. */
static void mma(void *const lanes[])
{
    float a[16][16], b[16][8], c[16][8];
    for (int l = 0; l < WARP; l++) {
        const mma_lane *x = lanes[l];
        const int g = l / 4, t = l % 4 * 2;
        for (int i = 0; i < 4; i++) {
            const int row = g + i % 2 * 8, col = t + i / 2 * 8;
            a[row][col] = low_of(x->a[i]), a[row][col + 1] = high_of(x->a[i]);
        }
        for (int i = 0; i < 2; i++)
            b[t + 8 * i][g] = low_of(x->b[i]), b[t + 8 * i + 1][g] = high_of(x->b[i]);
        for (int i = 0; i < 4; i++) c[g + i / 2 * 8][t + i % 2] = x->c[i];
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int col = 0; col < 8; col++) c[row][col] += a[row][k] * b[k][col];
    for (int l = 0; l < WARP; l++)
        for (int i = 0; i < 4; i++)
            ((const mma_lane *)lanes[l])->c[i] = c[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}

void f2b_emu_mma(float c[4], const unsigned a[4], const unsigned b[2], const char *file, int line)
{
    mma_lane lane = { .c = c };
    memcpy(lane.a, a, sizeof lane.a);
    memcpy(lane.b, b, sizeof lane.b);
    f2b_emu_collective(mma, ALL_LANES, &lane, file, line);
}

/* ---- ldmatrix.sync.aligned.m8n8.x4(.trans).shared.b16 ---- */

typedef struct load_lane {
    const uint16_t *row;            /* of matrix lane / 8 */
    unsigned r[4];
    bool turned;
} load_lane;

static void load_matrices(void *const lanes[])
{
    for (int l = 0; l < WARP; l++) {
        load_lane *x = lanes[l];
        for (int m = 0; m < 4; m++) {
            uint16_t pair[2];
            for (int e = 0; e < 2; e++) {
                const int row = x->turned ? l % 4 * 2 + e : l / 4, col = x->turned ? l / 4 : l % 4 * 2 + e;
                pair[e] = ((const load_lane *)lanes[8 * m + row])->row[col];
            }
            x->r[m] = (unsigned)pair[0] | (unsigned)pair[1] << 16;
        }
    }
}

void f2b_emu_load_matrices(unsigned r[4], unsigned address, bool turned, const char *file, int line)
{
    load_lane lane = { .row = (const uint16_t *)(const void *)f2b_emu_shared_at(address, 16, file, line),
                       .turned = turned };
    f2b_emu_collective(load_matrices, ALL_LANES, &lane, file, line);
    memcpy(r, lane.r, sizeof lane.r);
}

/* ---- cp.async: the place is lost when the copy is asked for, and filled when it is waited for ---- */

typedef struct copy {
    char *to;
    const void *from;               /* NULL: zeros */
    unsigned bytes;
    const char *file;
    int line;
} copy;

static struct { copy copies[MOST_COPIES]; int n; } pending[MOST_THREADS];

void f2b_emu_copy(unsigned to, const void *from, unsigned bytes, bool there, const char *file, int line)
{
    const int thread = f2b_emu_thread();
    if (pending[thread].n == MOST_COPIES) f2b_emu_fault("%s:%d: more copies than are counted", file, line);
    if (there && (uintptr_t)from % bytes != 0)
        f2b_emu_fault("%s:%d: %u bytes are copied from %p", file, line, bytes, from);
    char *place = f2b_emu_shared_at(to, bytes, file, line);
    memset(place, 0xFF, bytes);
    pending[thread].copies[pending[thread].n++] = (copy){ place, there ? from : NULL, bytes, file, line };
}

void f2b_emu_copy_wait(void)
{
    const int thread = f2b_emu_thread();
    for (int i = 0; i < pending[thread].n; i++) {
        const copy *c = &pending[thread].copies[i];
        if (c->from != NULL) memcpy(c->to, c->from, c->bytes);
        else memset(c->to, 0, c->bytes);
    }
    pending[thread].n = 0;
}

void f2b_emu_copies_end(int thread)
{
    if (pending[thread].n == 0) return;
    const copy *c = &pending[thread].copies[0];
    f2b_emu_fault("%s:%d: thread %d ends without waiting for its copy", c->file, c->line, thread);
}
