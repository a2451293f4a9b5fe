/* The method's settings as a JSON object, for files that hold more than them. */
#ifndef F2B_CHECKPOINTS_METHOD_INTERNAL_H
#define F2B_CHECKPOINTS_METHOD_INTERNAL_H

#include <jansson.h>

#include "autograd/core/status.h"
#include "nn/method.h"

/** A new object, to be given away or json_decref-ed. NULL with the error set. */
json_t *f2bi_method_object(const f2b_method *method);

/** As f2b_method_from_json. */
F2B_MUST_USE f2b_status f2bi_method_read(f2b_method *method, const json_t *object,
                                         const char *where);

#endif
