// Texts that grow. They do without printf, which would bring WASI's files along.

#pragma once

#include "bindings/strategy.h"

void add(strategy_string_t *text, const char *more);
void add_string(strategy_string_t *text, strategy_string_t more);
void add_number(strategy_string_t *text, uint64_t number);
