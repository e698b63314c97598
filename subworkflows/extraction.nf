// Extraction: one job, or one per group of tilt series where there are many, with the same result.
include { IN_GROUPS ; GATHERED } from './groups'
include { EXTRACT ; EXTRACT as EXTRACT_GROUP } from '../modules/relion/extract'
include { MERGE_EXTRACT } from '../modules/core/merge_extract'

workflow EXTRACTION {
    take:
    inputs // [meta, name, settings] + series + [particle set]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    EXTRACT(sets.few)

    IN_GROUPS(sets.many)
    EXTRACT_GROUP(IN_GROUPS.out)
    GATHERED(EXTRACT_GROUP.out)
    MERGE_EXTRACT(sets.many.join(GATHERED.out).map { row -> [row[0], row[1], row[2], row[7], row[8]] })

    emit:
    job = EXTRACT.out.mix(MERGE_EXTRACT.out) // [meta, extract job]
}
