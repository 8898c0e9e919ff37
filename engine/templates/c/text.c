#include "text.h"

#include <stdlib.h>
#include <string.h>

void add_string(strategy_string_t *text, strategy_string_t more)
{
    if (more.len == 0)
        return;
    text->ptr = realloc(text->ptr, text->len + more.len);
    if (text->ptr == NULL)
        abort();
    memcpy(text->ptr + text->len, more.ptr, more.len);
    text->len += more.len;
}

void add(strategy_string_t *text, const char *more)
{
    add_string(text, (strategy_string_t){(uint8_t *)more, strlen(more)});
}

void add_number(strategy_string_t *text, uint64_t number)
{
    if (number >= 10)
        add_number(text, number / 10);
    uint8_t digit = (uint8_t)('0' + number % 10);
    add_string(text, (strategy_string_t){&digit, 1});
}
