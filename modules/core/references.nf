// The files that STAR files name, so that they are declared inputs of what reads them.
include { json_word } from '../../subworkflows/values'

process REFERENCES {
    label 'core'

    input:
    val names // each with the directory from which its own names hold
    path files, stageAs: 'star/?/*'

    output:
    path 'references.json'

    script:
    """
    printf %s ${json_word(names)} > names.json
    py2rely task references names.json --output references.json
    """
}
