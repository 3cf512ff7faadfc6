# What the scripts of an instance share; read by them, not run.
sutura="${SUTURA:-}"
if [ -z "$sutura" ]; then
    sutura="$here/venv/bin/sutura"
    [ -x "$sutura" ] || sutura=sutura
fi

# The network as a plain file: benchmarks may hold it compressed, under a name that ends in .gz.
unpacked() {
    case "$1" in
        *.gz)
            local plain
            plain="$(mktemp --suffix=.onnx)" && gzip -dc "$1" > "$plain" && echo "$plain"
            ;;
        *) echo "$1" ;;
    esac
}

# The name under which a VNN-LIB 2.0 property declares its network; N for VNN-LIB 1.0, which has no names.
network_name() {
    local read=cat name
    case "$1" in *.gz) read="gzip -dc" ;; esac
    name="$($read "$1" | sed 's/;.*//' | tr '\n\t()' '    ' | grep -oE 'declare-network +[A-Za-z_][A-Za-z0-9_]*' \
        | head -n 1 | awk '{print $2}')"
    echo "${name:-N}"
}
