#include "gate.h"

#include <string.h>

static bool same(strategy_string_t a, strategy_string_t b)
{
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

seen_t seen_in(metrics_list_sample_t samples, strategy_string_t arm)
{
    seen_t seen = {0, 0};
    for (size_t i = 0; i < samples.len; i++) {
        const metrics_sample_t *sample = &samples.ptr[i];
        if (!same(sample->arm, arm))
            continue;
        uint64_t bad = sample->errors;
        if (sample->over.len > 0)
            bad += sample->over.ptr[0];
        seen.requests += sample->requests;
        // A request may be both slow and an error; it is bad only once.
        seen.bad += bad < sample->requests ? bad : sample->requests;
    }
    return seen;
}

bool too_bad(seen_t seen, uint32_t permille)
{
    return seen.bad * 1000 > seen.requests * permille;
}
