# bash completion of attnscope's programs: their options, as --help lists them, and names of files.

_attnscope() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()

    # Lines of options begin with two blanks and a dash: "  -h,--help  text", "  --layout TEXT=hnd  text".
    local line word rest names options="" takes_value=""
    local option='^  (-[^ ]+)(.*)' kind='^ [A-Z]+([^a-z:]|$)'
    while IFS= read -r line; do
        [[ $line =~ $option ]] || continue
        names=${BASH_REMATCH[1]//,/ } rest=${BASH_REMATCH[2]}
        options+=" $names"
        # What takes a value names its kind, in capitals, behind one blank.
        [[ $rest =~ $kind ]] && takes_value+=" $names "
    done < <("$1" --help 2>/dev/null)

    if [[ $current != -* || $takes_value == *" $previous "* ]]; then
        compopt -o default 2>/dev/null # files
        return
    fi
    for word in $options; do
        if [[ $word == "$current"* ]]; then COMPREPLY+=("$word"); fi
    done
}

complete -F _attnscope attnscope-{capture,laws,length-scaling,long-context,long-context-mpi,merge,paper,plan} \
    attnscope-{report,report-mpi,select,tokenize,train,training-temperature}
