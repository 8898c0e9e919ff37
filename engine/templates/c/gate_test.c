#undef NDEBUG
#include <assert.h>

#include "gate.h"

static strategy_string_t canary = {(uint8_t *)"canary", 6};
static strategy_string_t stable = {(uint8_t *)"stable", 6};

static void expect(uint32_t errors, strategy_list_u32_t over, uint64_t bad)
{
    metrics_sample_t samples[] = {
        {.arm = canary, .requests = 100, .errors = errors, .over = over},
        {.arm = stable, .requests = 900, .errors = 900},
    };
    seen_t seen = seen_in((metrics_list_sample_t){samples, 2}, canary);
    assert(seen.requests == 100);
    assert(seen.bad == bad);
}

int main(void)
{
    // Errors and slow requests are bad.
    expect(2, (strategy_list_u32_t){(uint32_t[]){3}, 1}, 5);
    expect(60, (strategy_list_u32_t){(uint32_t[]){70}, 1}, 100);
    expect(2, (strategy_list_u32_t){NULL, 0}, 2);

    // The limit itself is allowed.
    assert(!too_bad((seen_t){100, 2}, 20));
    assert(too_bad((seen_t){100, 3}, 20));
    assert(!too_bad((seen_t){0, 0}, 0));
    return 0;
}
