# Images that suites of engines ask a registry for, made from Debian's busybox, and the registry. To be sourced.
# One time for all, so that what has the same files is the same image; two hours ago, because tests compare what Podman says
# of their age, which changes with each second in the first minute.
images_made=$(($(date +%s) - 7200))

# rootfs FOLDER: a root file system with busybox.
rootfs() {
  local root=$1 applet
  mkdir -p "$root"/{bin,dev,etc,home,lib,media,mnt,opt,proc,root,run,sbin,srv,sys,tmp,usr/bin,usr/sbin,usr/share,var/tmp,var/log}
  chmod 1777 "$root/tmp" "$root/var/tmp"
  cp "$(command -v busybox)" "$root/bin/busybox"
  while read -r applet; do
    # Hard links, as in busybox' own image: a mask or a mount over one leaves the others alone.
    [[ $applet == busybox ]] || ln "$root/bin/busybox" "$root/bin/$applet"
  done < <(busybox --list)
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'bin:x:1:1:bin:/bin:/sbin/nologin' 'daemon:x:2:2:daemon:/sbin:/sbin/nologin' \
    'www-data:x:33:33:www-data:/var/www:/sbin/nologin' 'nobody:x:65534:65534:nobody:/:/sbin/nologin' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:root' 'bin:x:1:root,bin,daemon' 'daemon:x:2:root,bin,daemon' 'www-data:x:33:' 'nobody:x:65534:' >"$root/etc/group"
  printf '127.0.0.1\tlocalhost\n' >"$root/etc/hosts"
}

# program ROOTFS NAME...: the machine's own program, with its libraries.
program() {
  local root=$1 name file
  shift
  for name in "$@"; do
    file=$(command -v "$name")
    cp "$file" "$root/bin/"
    ln "$root/bin/$name" "$root/usr/bin/$name"
    { ldd "$file" 2>/dev/null || true; } | grep -o '/[^ ]*' | xargs -r cp -L --parents --update -t "$root"
  done
}

# archive ROOTFS CONFIG NAME FILE: an image in Docker's form; CONFIG is the JSON of its `config`. The history is what
# Podman's tests look for in theirs.
archive() {
  local root=$1 config=$2 name=$3 file=$4 folder layer created
  folder=$(mktemp -d)
  tar -C "$root" --numeric-owner --sort=name --mtime=@1600000000 -cf "$folder/layer.tar" .
  layer=sha256:$(sha256sum "$folder/layer.tar" | cut -d' ' -f1)
  created=$(date -u --date="@$images_made" +%Y-%m-%dT%H:%M:%SZ)
  jq -n --argjson config "$config" --arg layer "$layer" --arg created "$created" --arg architecture "$(dpkg --print-architecture)" '{
    $architecture, os: "linux", $created,
    config: ({Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]} + $config),
    rootfs: {type: "layers", diff_ids: [$layer]}, history: [{$created, created_by: "CMD [] LABEL busybox", comment: "FROM localhost/interim-image:latest"}]
  }' >"$folder/config.json"
  jq -n --arg name "$name" '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$folder/manifest.json"
  tar -C "$folder" -cf "$file" .
  rm -r "$folder"
}

# registry PORT: a registry on the loopback address; what is pushed lies in TMPDIR.
registry() {
  local config=$TMPDIR/registry.yml
  printf '%s\n' 'version: 0.1' 'log: {accesslog: {disabled: true}}' \
    "storage: {filesystem: {rootdirectory: $TMPDIR/registry}}" "http: {addr: '127.0.0.1:$1'}" >"$config"
  OTEL_TRACES_EXPORTER=none docker-registry serve "$config" >"$TMPDIR/registry.log" 2>&1 &
  until (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do read -rt 0.1 <> <(:) || true; done
}

# push ARCHIVE PORT NAME: NAME without the registry.
push() {
  skopeo copy --quiet --insecure-policy --dest-tls-verify=false "docker-archive:$1" "docker://127.0.0.1:$2/$3"
}
