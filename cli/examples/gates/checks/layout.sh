# The image is an OCI layout with one manifest, and says whose user it runs as.
set -e
grep -q '"imageLayoutVersion"' "$KILN_ARTIFACT/oci-layout"
cd "$KILN_ARTIFACT/blobs/sha256"
grep -l '"User": *"1000:1000"' * >/dev/null || { echo "error: $KILN_ARTIFACT_NAME runs as root"; exit 1; }
echo "$KILN_ARTIFACT_NAME for $KILN_PLATFORM is a layout and runs as nobody special"
