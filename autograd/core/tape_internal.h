/* What the tape's two directions share: tape.c runs and records, backward.c goes back. */
#ifndef F2B_AUTOGRAD_CORE_TAPE_INTERNAL_H
#define F2B_AUTOGRAD_CORE_TAPE_INTERNAL_H

#include "autograd/core/op.h"

struct f2b_tape {
    f2b_device device;
    bool recording;
    f2b_space_rule *rule;       /* of a rehearsal; else NULL */
    f2b_backward_watch *watch;
    void *watcher;
    f2b_tensor **tensors;
    int64_t n_tensors, cap_tensors;
    f2b_node **nodes;
    int64_t n_nodes, cap_nodes;
};

/** Memory of the tape's device; in a rehearsal no more than counted. */
void *f2bi_take(const f2b_tape *tape, size_t bytes, f2b_tag tag);

/** Free the data of a tensor that no op will read and no backward needs (or can have made again). */
void f2bi_free_if_unneeded(f2b_tensor *x);

void f2bi_node_free(f2b_node *n);

/** Do `apply` to each of the node's tensors whose data its backward reads. */
void f2bi_for_held(const f2b_node *n, void (*apply)(f2b_tensor *));

/** Run the node's kernel of one direction, profiled; in a rehearsal, take what it would take. */
f2b_status f2bi_run_kernel(f2b_node *n, bool backward) F2B_MUST_USE;

#endif
