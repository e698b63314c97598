// Every parameter, from wherever it came, checked and brought into one form.
include { json_word ; word } from '../../subworkflows/values'

process RECIPE {
    label 'core'

    input:
    val request
    path files, stageAs: 'parameters/?/*'
    val imported
    path directories, stageAs: 'imported/?/*'
    val tomograms

    output:
    path 'datasets.json'

    script:
    """
    printf %s ${word(request)} > request.json
    printf %s ${json_word(imported)} > imported.json
    printf %s ${json_word(tomograms)} > tomograms.json
    py2rely task recipe request.json --imported imported.json --tomograms tomograms.json --output datasets.json
    """
}
