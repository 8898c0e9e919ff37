#include "parameters.h"

#include <string.h>

#include "text.h"

typedef struct {
    const char *name;
    uint32_t preset, least, most;
    const char *meaning;
} parameter_t;

static const parameter_t all[PARAMETERS] = {
    [FIRST_SHARE] = {"first-share", 5, 1, 100, "Percent of the traffic at the first step."},
    [BAKE_SECONDS] = {"bake-seconds", 300, 1, 86400, "Seconds between two looks at the metrics."},
    [SLOW_MS] = {"slow-ms", 500, 1, 600000,
                 "Requests that take longer than so many milliseconds are bad."},
    [MAX_BAD_PERMILLE] = {"max-bad-permille", 20, 0, 1000,
                          "How many of 1,000 requests may be bad."},
    [MIN_REQUESTS] = {"min-requests", 100, 1, 1000000,
                      "Requests of the new version that a decision needs."},
};

strategy_string_t parameters_schema(void)
{
    strategy_string_t schema = {0};
    add(&schema, "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\","
                 "\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
    for (int i = 0; i < PARAMETERS; i++) {
        add(&schema, i > 0 ? ",\"" : "\"");
        add(&schema, all[i].name);
        add(&schema, "\":{\"type\":\"integer\",\"minimum\":");
        add_number(&schema, all[i].least);
        add(&schema, ",\"maximum\":");
        add_number(&schema, all[i].most);
        add(&schema, ",\"default\":");
        add_number(&schema, all[i].preset);
        add(&schema, ",\"description\":\"");
        add(&schema, all[i].meaning);
        add(&schema, "\"}");
    }
    add(&schema, "}}");
    return schema;
}

// A JSON text that is being read.
typedef struct {
    const uint8_t *at, *end;
} reader_t;

// Skips blanks, and one character if it is the one that is expected.
static bool accept(reader_t *json, uint8_t expected)
{
    while (json->at < json->end && memchr(" \t\r\n", *json->at, 4))
        json->at++;
    if (json->at == json->end || *json->at != expected)
        return false;
    json->at++;
    return true;
}

static bool no_object(exports_strategy_issue_t *issue)
{
    add(&issue->message, "must be an object of integers");
    return false;
}

// Reads up to the quote: the names have no escapes. The number of parameters
// means that there is none of that name.
static int read_name(reader_t *json, exports_strategy_issue_t *issue)
{
    const uint8_t *name = json->at;
    while (json->at < json->end && *json->at != '"')
        json->at++;
    size_t length = json->at - name;
    int found = 0;
    while (found < PARAMETERS && (strlen(all[found].name) != length ||
                                  memcmp(all[found].name, name, length) != 0))
        found++;
    add(&issue->path, "/");
    add_string(&issue->path, (strategy_string_t){(uint8_t *)name, length});
    return found;
}

static bool read_integer(reader_t *json, const parameter_t *one, uint32_t *value)
{
    accept(json, ' ');
    const uint8_t *digits = json->at;
    *value = 0;
    // No limit has more than seven of them.
    while (json->at < json->end && json->at - digits < 8 && *json->at >= '0' && *json->at <= '9')
        *value = 10 * *value + (*json->at++ - '0');
    return json->at > digits && *value >= one->least && *value <= one->most;
}

// Reads `"name": integer` after its first quote, up to what follows it.
static bool read_one(reader_t *json, parameters_t values, exports_strategy_issue_t *issue)
{
    int found = read_name(json, issue);
    if (found == PARAMETERS) {
        add(&issue->message, "there is no such parameter");
        return false;
    }
    const parameter_t *one = &all[found];
    if (accept(json, '"') && accept(json, ':') && read_integer(json, one, &values[found])) {
        strategy_string_free(&issue->path);
        *issue = (exports_strategy_issue_t){0};
        return true;
    }
    add(&issue->message, "must be an integer from ");
    add_number(&issue->message, one->least);
    add(&issue->message, " to ");
    add_number(&issue->message, one->most);
    return false;
}

bool parameters_read(strategy_string_t text, parameters_t values, exports_strategy_issue_t *issue)
{
    for (int i = 0; i < PARAMETERS; i++)
        values[i] = all[i].preset;
    *issue = (exports_strategy_issue_t){0};

    reader_t json = {text.ptr, text.ptr + text.len};
    if (!accept(&json, '{'))
        return no_object(issue);
    if (accept(&json, '}'))
        return true;
    do {
        if (!accept(&json, '"'))
            return no_object(issue);
        if (!read_one(&json, values, issue))
            return false;
    } while (accept(&json, ','));
    return accept(&json, '}') || no_object(issue);
}
