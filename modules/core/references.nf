// The files that STAR files name, so that they are declared inputs of what reads them.
include { json_word ; word } from '../../subworkflows/values'

process REFERENCES {
    label 'core'

    input:
    val names
    val project
    path files, stageAs: 'star/?/*'

    output:
    path 'references.json'

    script:
    """
    printf %s ${json_word(names)} > names.json
    py2rely task references names.json --project ${word(project)} --output references.json
    """
}
