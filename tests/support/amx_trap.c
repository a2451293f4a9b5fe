/* See amx_trap.h. */
#include "tests/support/amx_trap.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/device/cpu/products.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <ucontext.h>

enum { TILES = 8, ROW_BYTES = 64, ROWS = F2B_TILE_ROWS, WORDS = F2B_TILE_WORDS };

/* The operand of LDTILECFG. */
typedef struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} shapes;

typedef union tile { uint8_t bytes[ROWS][ROW_BYTES]; uint32_t words[ROWS][WORDS]; float f32[ROWS][WORDS]; } tile;

static _Thread_local struct { shapes shape; tile tiles[TILES]; } state;
static uint64_t trapped;
static bool trapping;

static void refuse(const char *why)
{
    fprintf(stderr, "amx_trap: the processor would refuse: %s\n", why);
    abort();
}

/* ---- Arithmetic ---- */

#define LOW_HALF(w) f32_of((w) << 16)
#define HIGH_HALF(w) f32_of((w) & 0xFFFF0000u)
static inline float f32_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Apart, so that the compiler moves no arithmetic across the change of MXCSR. */
static __attribute__((noinline, no_sanitize("address", "undefined"), optimize("O3"))) void add_products(
    float (*c)[WORDS], const uint32_t (*a)[WORDS], const uint32_t (*b)[WORDS], int rows, int pairs, int cols)
{
    for (int m = 0; m < rows; m++) {
        float even[WORDS] = { 0 }, odd[WORDS] = { 0 };
        for (int k = 0; k < pairs; k++) {
            const float x = LOW_HALF(a[m][k]), y = HIGH_HALF(a[m][k]);
            for (int n = 0; n < WORDS; n++) {
                even[n] = fmaf(x, LOW_HALF(b[k][n]), even[n]);
                odd[n] = fmaf(y, HIGH_HALF(b[k][n]), odd[n]);
            }
        }
        for (int n = 0; n < cols; n++) {
            const float both = even[n] + odd[n];
            c[m][n] += both;
        }
    }
}

void f2b_amx_products(float c[][WORDS], const uint32_t a[][WORDS], const uint32_t b[][WORDS], int rows,
                      int pairs, int cols)
{
    const unsigned before = _mm_getcsr(), flush_and_nearest = 0x1F80 | 0x8040;
    _mm_setcsr(flush_and_nearest);
    add_products(c, a, b, rows, pairs, cols);
    _mm_setcsr(before);
}

/* ---- Instructions ---- */

static void set_up(const shapes *s)
{
    if (s->palette > 1) refuse("LDTILECFG: no such palette");
    for (int i = 0; i < 14; i++)
        if (s->reserved[i] != 0) refuse("LDTILECFG: a reserved byte is not 0");
    for (int i = 0; i < 16; i++) {
        if (i >= TILES && (s->rows[i] != 0 || s->bytes[i] != 0)) refuse("LDTILECFG: no such tile");
        if (s->rows[i] > ROWS || s->bytes[i] > ROW_BYTES) refuse("LDTILECFG: a tile is too large");
        if ((s->rows[i] == 0) != (s->bytes[i] == 0)) refuse("LDTILECFG: rows without bytes, or bytes without rows");
    }
    memset(&state, 0, sizeof state);
    if (s->palette == 1) state.shape = *s;
}

static tile *ready(int t)
{
    if (state.shape.palette != 1) refuse("tiles are not set up");
    if (t >= TILES || state.shape.rows[t] == 0) refuse("this tile is not set up");
    return &state.tiles[t];
}

static void load(int t, const char *from, int64_t stride)
{
    tile *into = ready(t);
    memset(into, 0, sizeof *into);
    for (int r = 0; r < state.shape.rows[t]; r++)
        memcpy(into->bytes[r], from + r * stride, state.shape.bytes[t]);
}

static void store(int t, char *to, int64_t stride)
{
    const tile *from = ready(t);
    for (int r = 0; r < state.shape.rows[t]; r++)
        memcpy(to + r * stride, from->bytes[r], state.shape.bytes[t]);
}

static void multiply(int c, int a, int b)
{
    const shapes *s = &state.shape;
    tile *sum = ready(c), *x = ready(a), *y = ready(b);
    if (a == b || a == c || b == c) refuse("TDPBF16PS: a tile is two operands");
    if (s->bytes[a] % 4 != 0 || s->bytes[b] % 4 != 0 || s->bytes[c] % 4 != 0)
        refuse("TDPBF16PS: half a word");
    if (s->rows[c] != s->rows[a] || s->bytes[c] != s->bytes[b] || s->bytes[a] / 4 != s->rows[b])
        refuse("TDPBF16PS: shapes do not match");
    f2b_amx_products(sum->f32, (const uint32_t (*)[WORDS])x->words, (const uint32_t (*)[WORDS])y->words,
                     s->rows[c], s->bytes[a] / 4, s->bytes[c] / 4);
}

/* ---- Decoding: VEX.128.<pp>.0F38.W0 <opcode> ModRM ---- */

enum { PP_NONE, PP_66, PP_F3, PP_F2 };

typedef struct instruction {
    int pp, opcode, mod, reg, rm, vvvv, length;
    char *address;              /* where mod is not 3 */
    int64_t stride;             /* the index register, scaled */
} instruction;

static int64_t general(const ucontext_t *u, int number)
{
    static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
    return u->uc_mcontext.gregs[order[number]];
}

static int64_t displacement(const uint8_t *at, int size)
{
    int32_t wide = 0;
    if (size == 1) return *(const int8_t *)at;
    if (size == 4) memcpy(&wide, at, 4);
    return wide;
}

/* False: this is none of ours. */
static bool decode(const ucontext_t *u, instruction *i)
{
    const uint8_t *code = (const uint8_t *)u->uc_mcontext.gregs[REG_RIP], *at = code;
    if (at[0] != 0xC4 || (at[1] & 0x1F) != 2 || (at[2] & 0x84) != 0) return false;  /* 0F38, W0, 128 */
    const int r = !(at[1] & 0x80), x = !(at[1] & 0x40), b = !(at[1] & 0x20);
    *i = (instruction){ .pp = at[2] & 3, .vvvv = ~at[2] >> 3 & 15, .opcode = at[3], .mod = at[4] >> 6,
                        .reg = (at[4] >> 3 & 7) + 8 * r, .rm = at[4] & 7 };
    if (i->opcode != 0x49 && i->opcode != 0x4B && i->opcode != 0x5C) return false;
    at += 5;
    if (i->mod == 3) {
        i->rm += 8 * b, i->length = 5;
        return true;
    }
    int size = i->mod == 1 ? 1 : i->mod == 2 ? 4 : 0;
    int64_t base;
    if (i->rm == 4) {
        const int sib = *at++, index = (sib >> 3 & 7) + 8 * x;
        if (index != 4) i->stride = general(u, index) * (1 << (sib >> 6));
        base = (sib & 7) == 5 && i->mod == 0 ? 0 : general(u, (sib & 7) + 8 * b);
        if ((sib & 7) == 5 && i->mod == 0) size = 4;
    } else if (i->rm == 5 && i->mod == 0) {
        size = 4, base = (int64_t)(at + 4);         /* from the next instruction on */
    } else {
        base = general(u, i->rm + 8 * b);
    }
    i->address = (char *)(base + displacement(at, size));
    i->length = (int)(at + size - code);
    return true;
}

/* False: no such instruction. */
static bool carry_out(const instruction *i)
{
    const bool memory = i->mod != 3, two_parts = memory && i->rm == 4;
    shapes s;
    if (i->opcode == 0x49 && memory && i->pp == PP_NONE) {                  /* LDTILECFG */
        memcpy(&s, i->address, sizeof s);
        set_up(&s);
    } else if (i->opcode == 0x49 && memory && i->pp == PP_66) {             /* STTILECFG */
        memcpy(i->address, &state.shape, sizeof state.shape);
    } else if (i->opcode == 0x49 && !memory && i->pp == PP_NONE) {          /* TILERELEASE */
        memset(&state, 0, sizeof state);
    } else if (i->opcode == 0x49 && !memory && i->pp == PP_F2) {            /* TILEZERO */
        memset(ready(i->reg), 0, sizeof(tile));
    } else if (i->opcode == 0x4B && two_parts && (i->pp == PP_F2 || i->pp == PP_66)) {
        load(i->reg, i->address, i->stride);                                /* TILELOADD, TILELOADDT1 */
    } else if (i->opcode == 0x4B && two_parts && i->pp == PP_F3) {          /* TILESTORED */
        store(i->reg, i->address, i->stride);
    } else if (i->opcode == 0x5C && !memory && i->pp == PP_F3) {            /* TDPBF16PS */
        multiply(i->reg, i->rm, i->vvvv);
    } else {
        return false;
    }
    return true;
}

static void on_illegal(int number, siginfo_t *info, void *context)
{
    (void)info;
    ucontext_t *u = context;
    instruction i;
    if (!decode(u, &i) || !carry_out(&i)) {
        signal(number, SIG_DFL);        /* it happens again, and ends the program as it should */
        return;
    }
    __atomic_fetch_add(&trapped, 1, __ATOMIC_RELAXED);
    u->uc_mcontext.gregs[REG_RIP] += i.length;
}

void f2b_amx_trap(void)
{
    if (!trapping && f2b_products_available(F2B_PRODUCTS_AMX_BF16)) return;
    struct sigaction a = { .sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO };
    sigemptyset(&a.sa_mask);
    if (sigaction(SIGILL, &a, NULL) != 0) abort();
    f2b_products_emulate_amx();
    trapping = true;
}

bool f2b_amx_is_trapped(void) { return trapping; }

uint64_t f2b_amx_trapped(void) { return __atomic_load_n(&trapped, __ATOMIC_RELAXED); }

#else

void f2b_amx_trap(void) {}
bool f2b_amx_is_trapped(void) { return false; }
uint64_t f2b_amx_trapped(void) { return 0; }
#endif
