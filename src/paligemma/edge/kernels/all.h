// Every kernel, in the terms of the instruction set whose file includes this one, and their table TABLE under the name NAME.

#include "attention.h"
#include "limits.h"
#include "linear.h"
#include "rows.h"
#include "step.h"

const Kernels TABLE = {NAME,   linear,     attention,   rms_norm,    layer_norm, rotate,
                       gelu_of, soft_cap_of, log_sum_exp, to_bfloat16, step,       peak,   read};
