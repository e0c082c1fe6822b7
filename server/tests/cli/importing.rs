//! `datahike import`.

use crate::kit::Place;

const TABLE: &str = "id,code,name,height,notes\n1,02,Ada,1.5,\n2,13,\"Bob, the 2nd\",2,x\n";

#[test]
fn columns_become_attributes_of_the_type_that_every_cell_has() {
    let place = Place::new();
    place.write("t.csv", TABLE);
    let import = ["import", "file:deep/down/t", "t.csv", "--namespace", "t", "--unique", "id"];
    place.run(&import).good();
    let pull = |entity: &str| place.run(&["pull", "file:deep/down/t", "[*]", entity]).good();
    assert_eq!(
        pull("[:t/id 1]"),
        "{:db/id 6, :t/code \"02\", :t/height 1.5, :t/id 1, :t/name \"Ada\"}\n"
    );
    assert!(pull("[:t/id 2]").contains(":t/height 2.0"), "{}", pull("[:t/id 2]"));
    let count = ["q", "file:deep/down/t", "[:find (count ?e) . :where [?e :t/name]]"];
    assert_eq!(place.run(&count).good(), "2\n");

    // The same again, with one change: rows are known by their id.
    place.write("t.csv", &TABLE.replace("Ada", "Ada L."));
    place.run(&import).good();
    assert_eq!(place.run(&count).good(), "2\n");
    assert!(pull("[:t/id 1]").contains("Ada L."));
}

#[test]
fn a_row_about_an_earlier_row_updates_it() {
    let place = Place::new();
    place.write("t.csv", "id,n\n1,1\n2,2\n1,3\n3,4\n");
    place.run(&["import", "file:t", "t.csv", "--unique", "id"]).good();
    let found = place.run(&["q", "file:t", "[:find ?i ?n :where [?e :id ?i] [?e :n ?n]]"]).good();
    assert_eq!(found, "#{[1 3] [2 2] [3 4]}\n");
}

#[test]
fn types_may_be_given() {
    let place = Place::new();
    place.write("t.csv", "a,b\n1,true\n2,false\n");
    place.run(&["import", "file:t", "t.csv", "--type", "a=string", "--type", "b=boolean"]).good();
    let found = place.run(&["q", "file:t", "[:find ?a ?b :where [?e :a ?a] [?e :b ?b]]"]).good();
    assert_eq!(found, "#{[\"1\" true] [\"2\" false]}\n");
    let wrong = place.run(&["import", "file:u", "t.csv", "--type", "b=long"]).failed(1);
    assert!(wrong.contains("line 2, column b") && wrong.contains("\"true\""), "{wrong}");
    assert!(
        place.run(&["import", "file:u", "t.csv", "--type", "c=long"]).failed(2).contains("\"c\"")
    );
}

#[test]
fn a_bad_table_is_refused_before_anything_is_made() {
    let place = Place::new();
    for (text, expected) in
        [("a,b\n1,2\n3\n", "line: 3"), ("a,a\n1,2\n", "two columns"), ("a,b c\n1,2\n", "\"b c\"")]
    {
        place.write("t.csv", text);
        let said = place.run(&["import", "file:t", "t.csv"]).failed(1);
        assert!(said.contains("t.csv") && said.contains(expected), "{said}");
        assert!(!place.path().join("t").exists(), "{text:?} made a database");
    }
    std::fs::write(place.path().join("bytes.csv"), b"a\n\xff\xfe\n").unwrap();
    let said = place.run(&["import", "file:u", "bytes.csv"]).failed(1);
    assert!(said.contains("UTF-8"), "{said}");
    assert!(place.run(&["import", "file:u", "gone.csv"]).failed(1).contains("gone.csv"));
    assert!(place.run(&["import", "file:u", "t.xls"]).failed(2).contains(".csv"));
}

#[test]
fn json_lines_and_transaction_data_are_taken() {
    let place = Place::new();
    place.write(
        "t.jsonl",
        "{\"id\": 1, \"tags\": [\"a\", \"b\"], \"home\": {\"city\": \"Rome\"}, \"x\": null}\n\n\
         {\"id\": 2, \"weight\": 1.5}\n{\"id\": 1, \"weight\": 2}\n",
    );
    place.run(&["import", "file:j", "t.jsonl", "--namespace", "p", "--unique", "id"]).good();
    let found =
        place.run(&["pull", "file:j", "[:p/tags :p/weight {:p/home [:p/city]}]", "[:p/id 1]"]);
    let expected = "{:p/home {:p/city \"Rome\"}, :p/tags [\"a\" \"b\"], :p/weight 2.0}\n";
    assert_eq!(found.good(), expected);
    place.write("bad.jsonl", "{\"a\": 1}\n{\"a\": \n");
    assert!(place.run(&["import", "file:k", "bad.jsonl"]).failed(1).contains("line 2"));

    place.write(
        "t.edn",
        "[{:db/ident :n :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]\n\
         {:n 1}\n{:n 2}\n",
    );
    let done = place.run(&["import", "file:e", "t.edn"]).good();
    assert_eq!(done, "{:datoms 7, :transactions 2}\n");
}
