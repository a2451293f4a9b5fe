/* See products.h. */
#include "autograd/device/cpu/products.h"

#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const char *const names[F2B_PRODUCTS_COUNT] = { "f32", "avx512_bf16", "amx_bf16" };

/* Written before products run, or by whoever asks first: every writer finds the same. */
static f2b_products chosen = F2B_PRODUCTS_COUNT;
static bool amx_is_emulated;

#if defined(__x86_64__)
static bool has_avx512_bf16(void)
{
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw")
           && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

/* The processor has tiles and their bf16 products, the system saves them at a switch (XCR0), and lets
 * this process use them: Linux gives tiles to those who ask, for all their threads. */
static bool has_amx(void)
{
#if defined(__x86_64__) && defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    const unsigned tile_state = 3u << 17, osxsave = 1u << 27, amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & osxsave) == 0) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (~d & (amx_bf16 | amx_tile)) != 0) return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((~low & tile_state) != 0 || !has_avx512_bf16()) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

static bool has(f2b_products family)
{
    if (family == F2B_PRODUCTS_AMX_BF16) return has_amx();
#if defined(__x86_64__)
    if (family == F2B_PRODUCTS_AVX512_BF16) return has_avx512_bf16();
#endif
    return family == F2B_PRODUCTS_F32;
}

bool f2b_products_available(f2b_products family)
{
    const bool emulated = amx_is_emulated && has(F2B_PRODUCTS_AVX512_BF16);
    return has(family) || (family == F2B_PRODUCTS_AMX_BF16 && emulated);
}

void f2b_products_emulate_amx(void) { amx_is_emulated = true; }

static f2b_products best(void)
{
    f2b_products family = F2B_PRODUCTS_COUNT - 1;
    while (!has(family)) family--;
    return family;
}

f2b_products f2b_cpu_products(void)
{
    f2b_products family = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (family != F2B_PRODUCTS_COUNT) return family;
    family = best();
    __atomic_store_n(&chosen, family, __ATOMIC_RELAXED);
    return family;
}

const char *f2b_products_name(f2b_products family) { return names[family]; }

f2b_status f2b_products_choose(const char *name)
{
    f2b_products family = best();
    if (name != NULL && name[0] != '\0') {
        for (family = 0; family < F2B_PRODUCTS_COUNT; family++)
            if (strcmp(name, names[family]) == 0) break;
        if (family == F2B_PRODUCTS_COUNT)
            return f2b_fail(F2B_ERR_USAGE, "\"%s\" is no way to compute products of bf16; there are "
                            "f32, avx512_bf16 and amx_bf16", name);
        if (!f2b_products_available(family))
            return f2b_fail(F2B_ERR_UNSUPPORTED, "this processor, or the system on it, has no %s", name);
    }
    __atomic_store_n(&chosen, family, __ATOMIC_RELAXED);
    return F2B_OK;
}
