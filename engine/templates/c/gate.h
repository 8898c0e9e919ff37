// The gate: what the candidate did to its users, and whether that is too bad.
// It knows no host, so a test needs none. Change it as you like.

#pragma once

#include "bindings/strategy.h"

// The candidate's requests so far, and those that failed or were slow.
typedef struct {
    uint64_t requests;
    uint64_t bad;
} seen_t;

// Adds up the samples of one arm.
seen_t seen_in(metrics_list_sample_t samples, strategy_string_t arm);

// Whether more than `permille` of 1,000 requests were bad.
bool too_bad(seen_t seen, uint32_t permille);
