// The files that STAR files name, so that they are declared inputs of what reads them.
process REFERENCES {
    label 'core'

    input:
    val names
    val project
    path files, stageAs: 'star/?/*'

    output:
    path 'references.txt'

    script:
    """
    cat > names.txt << 'END_OF_NAMES'
    ${names.join('\n    ')}
    END_OF_NAMES
    py2rely task references names.txt --project '${project}' --output references.txt
    """
}
