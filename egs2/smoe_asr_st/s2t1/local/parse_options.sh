# Sets the variables of run.sh from `--name value` and `--name=value`. Sourced by run.sh.
# An option is a variable that is set before this file is sourced and listed in ${options}.
while [ $# -gt 0 ]; do
    case "$1" in
        -h|--help)
            sed -n '/^# Usage/,/^[^#]/p' "$(basename "$0")" | sed -n 's/^# \{0,1\}//p'
            echo "Options and their values:"
            for name in ${options}; do echo "  --${name} \"${!name}\""; done
            exit 0 ;;
        --*)
            name=${1#--}
            if [ "${name}" != "${name%%=*}" ]; then
                value=${name#*=}
                name=${name%%=*}
                shift
            else
                if [ $# -lt 2 ]; then
                    echo "$0: option --${name} needs a value" >&2
                    exit 2
                fi
                value=$2
                shift 2
            fi
            case " $(echo ${options}) " in
                *" ${name} "*) printf -v "${name}" '%s' "${value}" ;;
                *)
                    echo "$0: unknown option --${name}; the options are: $(echo ${options})" >&2
                    exit 2 ;;
            esac ;;
        *)
            echo "$0: unexpected argument '$1'; options are written --name value" >&2
            exit 2 ;;
    esac
done
