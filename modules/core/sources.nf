// What the imports of other programs' data read. It is looked up in every run: only so does -resume see a new file, and
// what follows depends on its values, not on this task.
include { word } from '../../subworkflows/values'

process SOURCES {
    label 'core'
    cache false

    input:
    val request
    path files, stageAs: 'parameters/?/*'
    path places, stageAs: 'places/?/*'

    output:
    path 'sources.json'

    script:
    """
    printf %s ${word(request)} > request.json
    py2rely task sources request.json --output sources.json
    """
}
