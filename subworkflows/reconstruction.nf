// An average: one job, or sums over groups of tilt series where there are many, with the same result.
include { IN_GROUPS ; GATHERED } from './groups'
include { RECONSTRUCT } from '../modules/relion/reconstruct'
include { RECONSTRUCT_GROUP ; MERGE_RECONSTRUCT } from '../modules/relion/reconstruct_groups'

workflow RECONSTRUCTION {
    take:
    inputs // [meta, name, settings] + series + [particle set]

    main:
    sets = inputs.branch { row ->
        many: row[2].groups > 1
        few: true
    }
    RECONSTRUCT(sets.few)

    IN_GROUPS(sets.many)
    RECONSTRUCT_GROUP(IN_GROUPS.out)
    GATHERED(RECONSTRUCT_GROUP.out)
    MERGE_RECONSTRUCT(sets.many.join(GATHERED.out))

    emit:
    job = RECONSTRUCT.out.mix(MERGE_RECONSTRUCT.out) // [meta, reconstruct job]
}
