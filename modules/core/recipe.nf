// Every parameter, from wherever it came, checked and brought into one form.
include { word } from '../../subworkflows/values'

process RECIPE {
    label 'core'

    input:
    val request
    path files, stageAs: 'parameters/?/*'

    output:
    path 'datasets.json'

    script:
    """
    printf %s ${word(request)} > request.json
    py2rely task recipe request.json --output datasets.json
    """
}
