// Every parameter, from wherever it came, checked and brought into one form.
process RECIPE {
    label 'core'

    input:
    val request
    path files, stageAs: 'parameters/?/*'

    output:
    path 'datasets.json'

    script:
    """
    cat > request.json << 'END_OF_REQUEST'
    ${request}
    END_OF_REQUEST
    py2rely task recipe request.json --output datasets.json
    """
}
