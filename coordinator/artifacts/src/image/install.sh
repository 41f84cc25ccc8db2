# Installs the packages named by the arguments with the package manager that this root has, and leaves no lists or archives behind.
has() { command -v "$1" >/dev/null 2>&1; }
if has apt-get; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update
  apt-get -q -y install --no-install-recommends -- "$@"
  apt-get -q clean
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
elif has apk; then
  apk add --no-cache -- "$@"
elif has dnf; then
  dnf -y install --setopt=install_weak_deps=False --nodocs -- "$@"
  dnf clean all
elif has microdnf; then
  microdnf -y install --setopt=install_weak_deps=0 --nodocs "$@"
  microdnf clean all
elif has zypper; then
  zypper --non-interactive install --no-recommends -- "$@"
  zypper clean --all
else
  echo 'kiln: this image has no package manager that Kiln knows: expected apt-get, apk, dnf, microdnf or zypper' >&2
  exit 127
fi
