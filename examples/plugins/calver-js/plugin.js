// Keeps calendar versions (2026.04, 2026.04.1), newest first: examples/plugins/calver in JavaScript.

const SCHEMA = {
  type: "object",
  additionalProperties: false,
  properties: { since: { type: "string", description: "The oldest version to keep: YEAR.MONTH[.PATCH]." } },
};
const VERSION = /^([0-9]{4})\.([0-9]+)(?:\.([0-9]+))?$/;

// 2026.04.1 as [2026, 4, 1]. null means that it is no calendar version.
function version(tag) {
  const found = VERSION.exec(tag);
  if (!found) return null;
  const [year, month, patch] = found.slice(1).map((part) => Number(part ?? 0));
  return month >= 1 && month <= 12 && patch < 2 ** 32 ? [year, month, patch] : null;
}

function compare(one, other) {
  return one[0] - other[0] || one[1] - other[1] || one[2] - other[2];
}

export const meta = {
  describe() {
    return {
      name: "calver",
      version: "0.1.0",
      summary: "Keeps calendar versions, newest first",
      schemes: [],
      configSchema: JSON.stringify(SCHEMA),
      wishes: [],
      extra: [],
    };
  },
};

export const tagFilter = {
  select(given, config) {
    const text = JSON.parse(config).since;
    const since = text === undefined ? null : version(text);
    if (text !== undefined && since === null) {
      throw { tag: "invalid", val: "since: write YEAR.MONTH, as in 2026.02" };
    }
    const versions = given.tags.map(version);
    const kept = [];
    const other = [];
    const older = [];
    versions.forEach((found, at) => {
      if (found === null) other.push(at);
      else if (since !== null && compare(found, since) < 0) older.push(at);
      else kept.push(at);
    });
    kept.sort((one, another) => compare(versions[another], versions[one]));
    const groups = [
      { reason: "no calendar version", tags: other, unknown: false },
      { reason: "older than `since`", tags: older, unknown: false },
    ];
    return { kept, dropped: groups.filter((group) => group.tags.length > 0) };
  },
};
