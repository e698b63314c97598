// Extraction: one job, or one per group of tilt series where there are many, with the same result.
include { SPLIT } from '../modules/core/split'
include { EXTRACT } from '../modules/relion/extract'
include { EXTRACT as EXTRACT_GROUP } from '../modules/relion/extract'
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

    SPLIT(sets.many.map { row -> [row[0], row[2].groups, row[4], row[7]] })
    EXTRACT_GROUP(
        sets.many.join(SPLIT.out).flatMap { row -> members(row[0], row[8]).collect { member, group -> [member] + row[1..6] + [group] } }
    )
    parts = EXTRACT_GROUP.out
        .map { meta, job -> [groupKey(meta.findAll { key, _value -> !(key in ['group', 'groups']) }, meta.groups), meta.group, job] }
        .groupTuple()
        .map { key, numbers, jobs -> [key.getGroupTarget(), in_order(numbers, jobs)] }
    MERGE_EXTRACT(sets.many.join(parts).map { row -> [row[0], row[1], row[2], row[7], row[8]] })

    emit:
    job = EXTRACT.out.mix(MERGE_EXTRACT.out) // [meta, extract job]
}

def members(meta, groups) {
    return groups.withIndex().collect { group, number -> [meta + [group: number + 1, groups: groups.size()], group] }
}

def in_order(numbers, jobs) {
    return [numbers, jobs].transpose().sort { row -> row[0] }.collect { row -> row[1] }
}
