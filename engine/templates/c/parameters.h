// The parameters: their schema, and how they are read.

#pragma once

#include "bindings/strategy.h"

enum { FIRST_SHARE, BAKE_SECONDS, SLOW_MS, MAX_BAD_PERMILLE, MIN_REQUESTS, PARAMETERS };

typedef uint32_t parameters_t[PARAMETERS];

// A JSON Schema, for `describe`.
strategy_string_t parameters_schema(void);

// Reads a JSON object on top of the defaults. False with the first thing that
// is wrong with it.
bool parameters_read(strategy_string_t json, parameters_t values, exports_strategy_issue_t *issue);
