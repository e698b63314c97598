// An average: one job, or sums over groups of tilt series where there are many, with the same result.
include { SPLIT } from '../modules/core/split'
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

    SPLIT(sets.many.map { row -> [row[0], row[2].groups, row[4], row[7]] })
    RECONSTRUCT_GROUP(
        sets.many.join(SPLIT.out).flatMap { row -> members(row[0], row[8]).collect { member, group -> [member] + row[1..6] + [group] } }
    )
    parts = RECONSTRUCT_GROUP.out
        .map { meta, job -> [groupKey(meta.findAll { key, _value -> !(key in ['group', 'groups']) }, meta.groups), meta.group, job] }
        .groupTuple()
        .map { key, numbers, jobs -> [key.getGroupTarget(), in_order(numbers, jobs)] }
    MERGE_RECONSTRUCT(sets.many.join(parts))

    emit:
    job = RECONSTRUCT.out.mix(MERGE_RECONSTRUCT.out) // [meta, reconstruct job]
}

def members(meta, groups) {
    return groups.withIndex().collect { group, number -> [meta + [group: number + 1, groups: groups.size()], group] }
}

def in_order(numbers, jobs) {
    return [numbers, jobs].transpose().sort { row -> row[0] }.collect { row -> row[1] }
}
