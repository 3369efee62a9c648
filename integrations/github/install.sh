#!/usr/bin/env bash
# Downloads a release, compares it with its checksum, and puts it on the PATH of the later steps.
set -euo pipefail

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) target=x86_64-unknown-linux-gnu ;;
  Linux-aarch64) target=aarch64-unknown-linux-gnu ;;
  *)
    echo "::error::there is no release of dray for $(uname -s) on $(uname -m)"
    exit 2
    ;;
esac
if [[ ! ${DRAY_VERSION:-} =~ ^v[0-9]+\.[0-9]+\.[0-9]+([.-][0-9A-Za-z.-]+)?$ ]]; then
  echo "::error::\`${DRAY_VERSION:-}\` is no release of dray: set the input \`version\`, such as v0.1.0"
  exit 2
fi
archive="dray-${DRAY_VERSION#v}-$target.tar.gz"
folder="$RUNNER_TEMP/dray"
mkdir -p "$folder"
cd "$folder"
fetch() {
  curl --fail --silent --show-error --location --retry 3 --output "$1" "$DRAY_RELEASES/$DRAY_VERSION/$1"
}
fetch "$archive"
if [[ -n ${DRAY_SHA256:-} ]]; then
  echo "$DRAY_SHA256  $archive" >"$archive.sha256"
else
  fetch "$archive.sha256"
fi
sha256sum --check --strict "$archive.sha256"
tar --extract --gzip --file "$archive" --strip-components 1
"$folder/dray" --version
echo "$folder" >>"$GITHUB_PATH"
