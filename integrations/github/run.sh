#!/usr/bin/env bash
# Runs dray, keeps its report, and ends with its exit code.
set -uo pipefail

case "$DRAY_COMMAND" in
  sync | plan | check | lock | 'plugin install') ;;
  *)
    echo "::error::the input \`command\` is sync, plan, check, lock or plugin install, and not \`$DRAY_COMMAND\`"
    exit 2
    ;;
esac
read -ra words <<<"$DRAY_COMMAND"
args=()
while IFS= read -r line; do
  [[ -n ${line// /} ]] && args+=("$line")
done <<<"${DRAY_ARGS:-}"
if [[ $DRAY_COMMAND == 'plugin install' ]]; then
  exec dray "${words[@]}" --policy "$DRAY_POLICY" "${args[@]}"
fi
if [[ $DRAY_COMMAND != sync && $DRAY_COMMAND != plan ]]; then
  exec dray "${words[@]}" "$DRAY_POLICY" "${args[@]}"
fi
report="$RUNNER_TEMP/dray-report.json"
dray "${words[@]}" "$DRAY_POLICY" "${args[@]}" --output json >"$report"
code=$?
echo "report=$report" >>"$GITHUB_OUTPUT"
exit "$code"
