/* Spectra of winds as the sums over latitude take them, and back; included once for every instruction set.
 *
 * Rows of the doubled spectra are first those that meet dP / dtheta, of the other parity and with components exchanged, then
 * those that meet m P / sin(theta), times -i for the eastward and i for the northward component. */

static void KERNEL(winds)(void *argument)
{
    struct winds *f = argument;
    const long n = f->vectors, width = 2 * n * f->batch, half = f->half;
    for (;;) {
        const long order = __atomic_fetch_add(&f->next, 1, __ATOMIC_RELAXED);
        if (order >= f->orders)
            return;
        for (int q = 0; q < 2; q++) {
            for (long at = 0; at < half * width; at += 2 * n) {
                float *theta[2], *phi[2], *own[2];
                const float *turned[2];
                for (int part = 0; part < 2; part++) {
                    const long first = (part * f->orders + order) * half * width;
                    own[part] = f->spectra[q] + first + at;
                    turned[part] = f->spectra[1 - q] + first + at;
                    theta[part] = f->doubled[f->backward ? 1 - q : q] + 2 * first + at;
                    phi[part] = f->doubled[q] + 2 * first + half * width + at;
                }
                if (f->backward) {
                    for (long c = 0; c < n; c++) {
                        own[0][c] = theta[0][n + c] - phi[1][c];
                        own[1][c] = theta[1][n + c] + phi[0][c];
                        own[0][n + c] = theta[0][c] + phi[1][n + c];
                        own[1][n + c] = theta[1][c] - phi[0][n + c];
                    }
                    continue;
                }
                for (int part = 0; part < 2; part++) {
                    memcpy(theta[part], turned[part] + n, sizeof(float) * n);
                    memcpy(theta[part] + n, turned[part], sizeof(float) * n);
                }
                for (long c = 0; c < n; c++) {
                    phi[0][c] = own[1][c];
                    phi[1][c] = -own[0][c];
                    phi[0][n + c] = -own[1][n + c];
                    phi[1][n + c] = own[0][n + c];
                }
            }
        }
    }
}
