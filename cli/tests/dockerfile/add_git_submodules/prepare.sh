set -e
git init -q -b main sub && cd sub
git config user.name t && git config user.email t@example.com
echo s > s && git add . && git commit -q -m one && cd ..
git clone -q --bare sub served/sub.git && git -C served/sub.git update-server-info
git init -q -b main work && cd work
git config user.name t && git config user.email t@example.com
git -c protocol.file.allow=always submodule -q add -- "$(cd .. && pwd)/sub" sub
git config -f .gitmodules submodule.sub.url ../sub.git
git add . && git commit -q -m one
cd .. && git clone -q --bare work served/r.git && git -C served/r.git update-server-info
