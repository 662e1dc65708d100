/* Mean over instants of the sunlight on rows and columns of cells: `max(high + flat * turn, 0)` at each, summed. */

static void KERNEL(daylight)(const double *restrict high, const double *restrict flat, const double *restrict turn,
                             double *restrict total, long instants, long rows, long columns)
{
    for (long row = 0; row < rows; row++) {
        double *restrict out = total + row * columns;
        for (long n = 0; n < instants; n++) {
            const double *restrict angle = turn + n * columns;
            double least = high[n * rows + row], slope = flat[n * rows + row];
            for (long column = 0; column < columns; column++) {
                double light = least + slope * angle[column];
                light = light > 0 ? light : 0;
                out[column] = n ? out[column] + light : light;
            }
        }
    }
}
