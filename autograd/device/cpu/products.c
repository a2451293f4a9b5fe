/* See products.h. */
#include "autograd/device/cpu/products.h"

#include <string.h>

static const char *const names[F2B_PRODUCTS_COUNT] = { "f32", "avx512_bf16" };

/* Written before products run, or by whoever asks first: every writer finds the same. */
static f2b_products chosen = F2B_PRODUCTS_COUNT;

bool f2b_products_available(f2b_products family)
{
#if defined(__x86_64__)
    if (family == F2B_PRODUCTS_AVX512_BF16)
        return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw")
               && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
    return family == F2B_PRODUCTS_F32;
}

static f2b_products best(void)
{
    f2b_products family = F2B_PRODUCTS_COUNT - 1;
    while (!f2b_products_available(family)) family--;
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
                            "f32 and avx512_bf16", name);
        if (!f2b_products_available(family))
            return f2b_fail(F2B_ERR_UNSUPPORTED, "this processor has no %s", name);
    }
    __atomic_store_n(&chosen, family, __ATOMIC_RELAXED);
    return F2B_OK;
}
