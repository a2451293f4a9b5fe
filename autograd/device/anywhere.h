/* Marks a function that kernels of any device may call; to a host's compiler it says nothing. */
#ifndef F2B_AUTOGRAD_DEVICE_ANYWHERE_H
#define F2B_AUTOGRAD_DEVICE_ANYWHERE_H

#if defined(__CUDACC__)
#define F2B_ANYWHERE __host__ __device__
#else
#define F2B_ANYWHERE
#endif

#endif
