set -e
export GIT_AUTHOR_DATE="1000000000 +0000" GIT_COMMITTER_DATE="1000000000 +0000"
git init -q -b main work && cd work
git config user.name t && git config user.email t@example.com
echo 1 > a && git add . && git commit -q -m one && git tag v1
commit=$(git rev-parse HEAD)
echo 2 > a && git commit -q -a -m two
cd .. && git clone -q --bare work served/r.git && git -C served/r.git update-server-info
sed -i "s/88bf1ff57c25fe7bdebf1c5e0ffa0ad0f31efd4e/$commit/; s/88bf1ff57c25fe7b/$(echo $commit | cut -c1-16)/" Dockerfile
