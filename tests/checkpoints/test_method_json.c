/* The method's settings survive JSON, and what is missing, unknown or illegal is named. */
#include "tests/checkpoints/fixtures.h"

#include "checkpoints/method_json.h"

static f2b_method example(void)
{
    return (f2b_method){
        .tokens = 16,
        .prompt = "Summarize the image in a \"few\" words. \xc3\xa9\n",
        .template_ = F2B_SUMMARY_PLAIN,
        .attention = F2B_SUMMARY_BIDIRECTIONAL,
        .hidden_state = F2B_SUMMARY_PRE_NORM,
        .forward = F2B_FORWARD_SINGLE,
        .adapters = F2B_ADAPTERS_SINGLE,
        .temperature = 0.02,
        .language_model = F2B_LANGUAGE_MODEL_LORA,
        .image_aspect_ratio = F2B_ASPECT_CROP,
        .lora = { .r = 128,
                  .alpha = 256,
                  .dropout = 0.05,
                  .targets = 1u << F2B_LORA_Q | 1u << F2B_LORA_DOWN },
    };
}

static void survives_json(void **state)
{
    (void)state;
    const f2b_method method = example();
    char *json = f2b_method_to_json(&method);
    assert_non_null(json);
    f2b_method back;
    assert_ok(f2b_method_from_json(&back, json, "f2b.json"));
    assert_int_equal(back.tokens, 16);
    assert_string_equal(back.prompt, method.prompt);
    assert_int_equal(back.template_, method.template_);
    assert_int_equal(back.attention, method.attention);
    assert_int_equal(back.hidden_state, method.hidden_state);
    assert_int_equal(back.forward, method.forward);
    assert_int_equal(back.adapters, method.adapters);
    assert_true(back.temperature == 0.02 && !back.temperature_learned);
    assert_int_equal(back.image_aspect_ratio, method.image_aspect_ratio);
    assert_true(back.lora.alpha == 256 && back.lora.dropout == 0.05);
    assert_int_equal(back.lora.targets, method.lora.targets);
    char *again = f2b_method_to_json(&back);
    assert_string_equal(json, again);
    f2b_free(again);
    f2b_free(json);

    f2b_method learned = example();
    learned.temperature_learned = true;
    json = f2b_method_to_json(&learned);
    assert_non_null(strstr(json, "\"temperature\":\"learned\""));
    assert_ok(f2b_method_from_json(&back, json, "f2b.json"));
    assert_true(back.temperature_learned);
    f2b_free(json);
}

/* Each key in turn changed to something illegal, or to another name. */
static void names_what_is_wrong(void **state)
{
    (void)state;
    static const struct { const char *from, *to, *message; } cases[] = {
        { "\"tokens\":16", "\"tokens\":0", "tokens" },
        { "\"tokens\":16", "\"token\":16", "unknown key token" },
        { "\"template\":\"plain\"", "\"template\":\"x\"", "vicuna_v1, plain" },
        { "\"attention\":\"bidirectional\"", "\"attention\":1", "attention" },
        { "\"hidden_state\":\"pre_norm\",", "", "hidden_state" },
        { "\"forward\":\"single\"", "\"forward\":\"triple\"", "double, single, base" },
        { "\"temperature\":0.02", "\"temperature\":0", "temperature" },
        { "\"temperature\":0.02", "\"temperature\":\"warm\"", "temperature" },
        { "\"r\":128", "\"r\":-1", "r must be" },
        { "\"q_proj\"", "\"q\"", "lora.targets" },
        { "\"q_proj\"", "\"down_proj\"", "twice" },
        { "\"lora\":{", "\"lora\":[],\"x\":{", "x" },
    };
    const f2b_method method = example();
    char *json = f2b_method_to_json(&method);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        const char *place = strstr(json, cases[i].from);
        assert_non_null(place);
        char text[2048];
        snprintf(text, sizeof text, "%.*s%s%s", (int)(place - json), json, cases[i].to,
                 place + strlen(cases[i].from));
        f2b_method back;
        f2b_clear_error();
        if (f2b_method_from_json(&back, text, "a.json") == F2B_OK) fail_msg("accepted %s", text);
        assert_failed(F2B_ERR_FORMAT, "a.json", cases[i].message);
    }
    f2b_free(json);
    f2b_method bad = example();
    strcpy(bad.prompt, "\xff");
    assert_null(f2b_method_to_json(&bad));
    assert_failed(F2B_ERR_INVALID, "UTF-8", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survives_json), cmocka_unit_test(names_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
