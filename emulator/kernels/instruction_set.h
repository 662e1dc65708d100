/* All kernels for one instruction set, which KERNEL names. */

#include "fourier_kernel.h"
#include "legendre_kernel.h"
#include "gelu_kernel.h"
#include "layers_kernel.h"
#include "vectors_kernel.h"
#include "columns_kernel.h"
#include "correction_kernel.h"
#include "bytes_kernel.h"
#include "fields_kernel.h"
#include "daylight_kernel.h"
#define GROUP 1
#include "product_kernel.h"
#include "mixing_kernel.h"
#include "rearrange_kernel.h"
#include "winds_kernel.h"
#include "perceptron_kernel.h"
#include "stencil_kernel.h"
#include "filtering_kernel.h"
#include "messages_kernel.h"
#include "few_kernel.h"
#include "attention_kernel.h"
#undef GROUP
