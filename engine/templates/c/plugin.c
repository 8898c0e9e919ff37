// Doubles the new version's share while few of its requests are bad.

#include "bindings/strategy.h"

#include <stdlib.h>

#include "gate.h"
#include "parameters.h"
#include "text.h"

// Looks at one share before a person must decide.
enum { LOOKS = 10 };

typedef types_host_error_t error_t;

static uint32_t doubled(uint32_t share)
{
    return share < 50 ? 2 * share : 100;
}

void exports_strategy_describe(exports_strategy_description_t *ret)
{
    strategy_string_dup(&ret->name, "{{name}}");
    strategy_string_dup(&ret->version, "0.1.0");
    strategy_string_dup(&ret->summary,
                        "Doubles the new version's share while few of its requests are bad.");
    ret->parameters_schema = parameters_schema();
}

bool exports_strategy_validate(strategy_string_t *parameters, exports_strategy_plan_t *ret,
                               exports_strategy_list_issue_t *err)
{
    parameters_t p;
    exports_strategy_issue_t issue;
    if (!parameters_read(*parameters, p, &issue)) {
        err->ptr = malloc(sizeof issue);
        err->ptr[0] = issue;
        err->len = 1;
        return false;
    }
    // From 1 % to 100 % it takes eight steps.
    ret->steps.ptr = calloc(8, sizeof *ret->steps.ptr);
    ret->steps.len = 0;
    for (uint32_t share = p[FIRST_SHARE];; share = doubled(share)) {
        ret->steps.ptr[ret->steps.len++] = (exports_strategy_planned_step_t){
            .share = share,
            .seconds = {true, p[BAKE_SECONDS]},
        };
        if (share == 100)
            return true;
    }
}

static void wait(uint32_t seconds)
{
    strategy_list_string_t signals = {NULL, 0};
    control_wake_t wake;
    control_wait(seconds, &signals, &wake);
    control_wake_free(&wake);
}

// Moves the traffic; a refusal that may pass is tried again at every sample.
static bool reach(const exports_strategy_context_t *context, uint32_t share, error_t *error)
{
    types_weight_t weights[2];
    traffic_list_weight_t list = {weights, context->arms.len};
    for (size_t i = 0; i < context->arms.len; i++) {
        const types_arm_t *arm = &context->arms.ptr[i];
        weights[i].arm = arm->name;
        weights[i].weight = arm->role == TYPES_ROLE_CANDIDATE ? share : 100 - share;
    }
    while (!traffic_set_weights(&list, error)) {
        if (!error->retryable)
            return false;
        types_host_error_free(error);
        wait((context->sample_period_ms + 999) / 1000);
    }
    return true;
}

// Looks until there are requests enough, at most so often as is allowed.
static bool watch(const exports_strategy_context_t *context, const parameters_t p, seen_t *seen,
                  error_t *error)
{
    size_t candidate = 0;
    while (context->arms.ptr[candidate].role != TYPES_ROLE_CANDIDATE)
        candidate++;
    double slow_ms = p[SLOW_MS];
    metrics_metrics_query_t query = {.since = control_now(), .over_ms = {&slow_ms, 1}};
    for (int look = 0; look < LOOKS; look++) {
        wait(p[BAKE_SECONDS]);
        metrics_list_sample_t samples = {NULL, 0};
        if (!metrics_get_metrics(&query, &samples, error)) {
            if (!error->retryable)
                return false;
            // No data is no verdict; the next look may have some.
            types_host_error_free(error);
        }
        *seen = seen_in(samples, context->arms.ptr[candidate].name);
        metrics_list_sample_free(&samples);
        if (seen->requests >= p[MIN_REQUESTS])
            break;
    }
    return true;
}

static strategy_string_t too_few(seen_t seen, uint32_t share)
{
    strategy_string_t text = {0};
    add(&text, "only ");
    add_number(&text, seen.requests);
    add(&text, " requests in ");
    add_number(&text, LOOKS);
    add(&text, " looks at ");
    add_number(&text, share);
    add(&text, " %");
    return text;
}

static strategy_string_t counted(seen_t seen, uint32_t share)
{
    strategy_string_t text = {0};
    add_number(&text, seen.bad);
    add(&text, " of ");
    add_number(&text, seen.requests);
    add(&text, " requests were bad at ");
    add_number(&text, share);
    add(&text, " %");
    return text;
}

static bool failed(error_t error, strategy_string_t *err)
{
    *err = (strategy_string_t){0};
    add_string(err, error.message);
    add(err, " (");
    add_string(err, error.code);
    add(err, ")");
    return false;
}

static bool ended(uint8_t verdict, strategy_string_t reason, exports_strategy_outcome_t *ret)
{
    ret->verdict = verdict;
    ret->reason = reason;
    return true;
}

bool exports_strategy_run(exports_strategy_context_t *context, strategy_string_t *parameters,
                          exports_strategy_outcome_t *ret, strategy_string_t *err)
{
    parameters_t p;
    exports_strategy_issue_t issue;
    if (!parameters_read(*parameters, p, &issue)) {
        *err = issue.message;
        return false;
    }
    for (uint32_t share = p[FIRST_SHARE];; share = doubled(share)) {
        strategy_string_t note = {0};
        add_number(&note, share);
        add(&note, " % of the traffic");
        control_progress(share, &note);
        strategy_string_free(&note);

        error_t error;
        seen_t seen;
        if (!reach(context, share, &error) || !watch(context, p, &seen, &error))
            return failed(error, err);
        if (seen.requests < p[MIN_REQUESTS])
            return ended(EXPORTS_STRATEGY_VERDICT_INCONCLUSIVE, too_few(seen, share), ret);
        strategy_string_t found = counted(seen, share);
        if (too_bad(seen, p[MAX_BAD_PERMILLE]))
            return ended(EXPORTS_STRATEGY_VERDICT_ROLLED_BACK, found, ret);
        control_log(CONTROL_LEVEL_INFO, &found);
        if (share == 100)
            return ended(EXPORTS_STRATEGY_VERDICT_PROMOTED, found, ret);
        strategy_string_free(&found);
    }
}
