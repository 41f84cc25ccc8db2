set -e
mkdir work && cd work && git init -q -b main .
git config user.name t && git config user.email t@example.com
echo 1 > a && git add . && git commit -q -m one
cd .. && git clone -q --bare work served/r.git && cd served/r.git && git update-server-info
