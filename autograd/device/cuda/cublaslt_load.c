/*
 * Opens cuBLASLt at run time: a program that never multiplies on a device needs no 600 MB library to
 * start, nor a machine that has one.
 */
#include <dlfcn.h>

#include "autograd/device/cuda/cublaslt.h"

static f2b_status find(void *library, const char *name, void *place)
{
    void *function = dlsym(library, name);
    if (function == NULL)
        return f2b_fail(F2B_ERR_DEVICE, "the cuBLASLt that is installed has no %s; CUDA 12 or 13 is "
                        "needed", name);
    *(void **)place = function;
    return F2B_OK;
}

f2b_status f2bi_cublaslt_load(f2bi_cublaslt *functions)
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so" };
    void *library = NULL;
    for (int i = 0; i < 3 && library == NULL; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return f2b_fail(F2B_ERR_DEVICE, "cuBLASLt cannot be opened (%s); install the CUDA toolkit's "
                        "libcublas, or put its folder into LD_LIBRARY_PATH", dlerror());
#define F2BI_X(name) F2B_TRY(find(library, #name, &functions->name));
    F2BI_CUBLASLT_FUNCTIONS(F2BI_X)
#undef F2BI_X
    return F2B_OK;
}
