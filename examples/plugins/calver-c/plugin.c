// Keeps calendar versions (2026.04, 2026.04.1), newest first: examples/plugins/calver in C.

#include "plugin.h"
#include <stdlib.h>
#include <string.h>

static const char SCHEMA[] =
    "{\"type\":\"object\",\"additionalProperties\":false,"
    "\"properties\":{\"since\":{\"type\":\"string\",\"description\":\"The oldest version to keep: YEAR.MONTH[.PATCH].\"}}}";

// What is returned is freed by the bindings, so it is a copy.
static void text(plugin_string_t *into, const char *from) {
  plugin_string_dup(into, from);
}

void exports_dray_plugin_meta_describe(exports_dray_plugin_meta_info_t *ret) {
  memset(ret, 0, sizeof *ret);
  text(&ret->name, "calver");
  text(&ret->version, "0.1.0");
  text(&ret->summary, "Keeps calendar versions, newest first");
  text(&ret->config_schema, SCHEMA);
}

// The text of a key in a flat JSON object that dray has checked by the schema. Escapes are not read: no version holds any.
static bool value(plugin_string_t *json, const char *key, plugin_string_t *found) {
  size_t length = strlen(key);
  for (size_t at = 0; at + length + 2 < json->len; at++) {
    const uint8_t *here = json->ptr + at;
    if (here[0] != '"' || memcmp(here + 1, key, length) != 0 || here[length + 1] != '"') continue;
    at += length + 2;
    while (at < json->len && json->ptr[at] != '"') at++;
    size_t begin = ++at;
    while (at < json->len && json->ptr[at] != '"') at++;
    if (at >= json->len) return false;
    found->ptr = json->ptr + begin;
    found->len = at - begin;
    return true;
  }
  return false;
}

// Reads digits from `*at` on. Returns how many there were; a number above `most` counts as none.
static size_t number(const plugin_string_t *tag, size_t *at, uint64_t most, uint64_t *found) {
  size_t begin = *at;
  *found = 0;
  while (*at < tag->len && tag->ptr[*at] >= '0' && tag->ptr[*at] <= '9') {
    *found = *found * 10 + (tag->ptr[*at] - '0');
    if (*found > most) return 0;
    (*at)++;
  }
  return *at - begin;
}

// A version as one number that sorts as versions do. 0 means that it is no calendar version.
static uint64_t version(const plugin_string_t *tag) {
  size_t at = 0;
  uint64_t year, month, patch = 0;
  if (number(tag, &at, 9999, &year) != 4) return 0;
  if (at >= tag->len || tag->ptr[at++] != '.') return 0;
  if (number(tag, &at, 12, &month) == 0 || month == 0) return 0;
  if (at < tag->len) {
    if (tag->ptr[at++] != '.' || number(tag, &at, UINT32_MAX, &patch) == 0) return 0;
  }
  return at == tag->len ? (year << 40) | (month << 32) | patch : 0;
}

static void group(exports_dray_plugin_tag_filter_selection_t *into, const char *reason, uint32_t *tags, size_t count) {
  if (count == 0) return;
  exports_dray_plugin_tag_filter_dropped_t *one = &into->dropped.ptr[into->dropped.len++];
  memset(one, 0, sizeof *one);
  text(&one->reason, reason);
  one->tags.ptr = tags;
  one->tags.len = count;
}

bool exports_dray_plugin_tag_filter_select(exports_dray_plugin_tag_filter_choice_t *given, plugin_string_t *config,
                                           exports_dray_plugin_tag_filter_selection_t *ret,
                                           exports_dray_plugin_tag_filter_error_t *err) {
  plugin_string_t written;
  uint64_t since = 0;
  if (value(config, "since", &written) && (since = version(&written)) == 0) {
    err->tag = DRAY_PLUGIN_TYPES_ERROR_INVALID;
    text(&err->val.invalid, "since: write YEAR.MONTH, as in 2026.02");
    return false;
  }
  memset(ret, 0, sizeof *ret);
  size_t count = given->tags.len, others = 0, olders = 0;
  uint64_t *versions = malloc(count * sizeof(uint64_t));
  uint32_t *other = malloc(count * sizeof(uint32_t)), *older = malloc(count * sizeof(uint32_t));
  uint32_t *kept = ret->kept.ptr = malloc(count * sizeof(uint32_t));
  for (uint32_t at = 0; at < count; at++) {
    versions[at] = version(&given->tags.ptr[at]);
    if (versions[at] == 0) {
      other[others++] = at;
    } else if (versions[at] < since) {
      older[olders++] = at;
    } else {
      // Lists of tags are short: each is put in its place, behind what is as new.
      size_t place = ret->kept.len++;
      while (place > 0 && versions[kept[place - 1]] < versions[at]) {
        kept[place] = kept[place - 1];
        place--;
      }
      kept[place] = at;
    }
  }
  ret->dropped.ptr = malloc(2 * sizeof *ret->dropped.ptr);
  group(ret, "no calendar version", other, others);
  group(ret, "older than `since`", older, olders);
  return true;
}
