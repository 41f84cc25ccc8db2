set -e
mkdir work && cd work && git init -q -b main .
git config user.name t && git config user.email t@example.com
mkdir d && echo 1 > a && echo b > d/b
git add . && git commit -q -m one && git tag v1
git checkout -q -b other && echo other > a && git commit -q -a -m other && git checkout -q main
echo 2 > a && git commit -q -a -m two
cd .. && git clone -q --bare work served/r.git && cd served/r.git && git update-server-info
