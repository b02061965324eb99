#!/usr/bin/env bash
# Vendors a release of Scalar's API reference from the npm registry: ./renew.sh 1.76.0
set -euo pipefail
cd "$(dirname "$0")"
package="@scalar/api-reference" file="dist/browser/standalone.js"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm pack "$package@$1" --json --pack-destination "$work" >"$work/packed.json"
tar -xzf "$work"/*.tgz -C "$work"
gzip -9nc "$work/package/$file" >scalar.js.gz
node -e '
  const [packed] = Object.values(JSON.parse(fs.readFileSync(process.argv[1])))
  const { license } = JSON.parse(fs.readFileSync(process.argv[2]))
  const sha256 = crypto.createHash("sha256").update(fs.readFileSync(process.argv[3])).digest("hex")
  const { name, version, integrity } = packed
  console.log(JSON.stringify({ name, version, license, integrity, file: process.argv[4], sha256 }, null, 2))
' "$work/packed.json" "$work/package/package.json" "$work/package/$file" "$file" >scalar.json
cat scalar.json
